"""The recipe record and its registry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ptqbench.core.registry import Registry
from ptqbench.recipes.published_accuracy import PUBLISHED, Published
from ptqbench.settings.thresholds import Thresholds
from ptqbench.settings.weights_specifier import PROBE

Group = tuple[str, ...]
"""Module names that become one fused module: convolution, BatchNorm, ReLU."""

Flow = Literal["fx", "eager"]

MEASURED = "measured"
"""Backend of a recipe that recommends none: the fastest on the machine at hand is looked for."""


@dataclass(frozen=True)
class Recipe:
    """How an architecture is quantized after training, and what must come of it.

    Attributes:
        model: Name of the architecture.
        backend: Recommended backend, or `MEASURED`.
        fusion: Fusion groups by module name, all of them; None: those that are found in the
            model's graph (``quantization.completion``).
        int8_modules: How many convolutions and linear layers become int8; None: all that the
            model's graph has and ``keep_float`` does not name.
        thresholds: What the gates hold the result against.
        flow: ``fx`` (graph mode) or ``eager`` (needs a quantizable variant).
        observer: How activation ranges are found: ``histogram`` (minimal squared error,
            torch.ao ``HistogramObserver``) or ``minmax``.
        per_channel: Weight scales per output channel, on qnnpack too: its per-tensor
            default collapses MobileNets.
        spare_bit: Which side gives up a bit where 8 by 8 bits saturate (AVX2 without
            VNNI): 7-bit ``weights``, 7-bit ``activations``, or ``none``, which
            saturates there and exists to show it.
        calibration_images: How many images the ranges are taken from.
        keep_float: Module names that stay float32, with all below them; wildcards allowed. Also
            functions, ``<add>``, ``<mul>`` or ``<cat>``: all calls of them.
        fused_groups: How many groups must be found where ``fusion`` is None; None: unknown.
        probe: Thresholds that replace the others under ``probe`` weights, by field of
            `Thresholds`: a random network with a fitted head is no trained classifier.
        unsupported: Why the model cannot be quantized for a backend, by its name; found by
            running it.
        declared: Of a recipe that was completed from a model's graph: the hash of the recipe
            as it was declared, and that of all that is in it now. See :meth:`completing`.
    """

    model: str
    backend: str
    fusion: tuple[Group, ...] | None
    int8_modules: int | None
    thresholds: Thresholds
    flow: Flow = "fx"
    observer: Literal["histogram", "minmax"] = "histogram"
    per_channel: bool = True
    spare_bit: Literal["weights", "activations", "none"] = "weights"
    calibration_images: int = 256
    keep_float: tuple[str, ...] = ()
    fused_groups: int | None = None
    probe: Mapping[str, Any] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)
    declared: tuple[str, str] | None = field(default=None, compare=False, repr=False)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The fusion groups.

        Raises:
            ValueError: They have to be found in the model's graph first.
        """
        if self.fusion is None:
            raise ValueError(f"The fusion groups of {self.model} are not known yet.")
        return self.fusion

    def thresholds_for(self, weights: str) -> Thresholds:
        """Thresholds under weights from a source, unless settings replace them.

        Args:
            weights: Source of the weights; under ``probe`` other thresholds may apply.
        """
        return self.thresholds.replaced(self.probe) if weights == PROBE else self.thresholds

    @property
    def published(self) -> Mapping[str, Published]:
        """What torchvision published in float32 and int8, by the name of its weights.

        They are not part of the recipe's hash: nothing is held against them.
        """
        return {w: found for (model, w), found in PUBLISHED.items() if model == self.model}

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change when anything that was declared does.

        What was only found in a model's graph is left out: a completed recipe keeps the hash
        of the one it completes, until something else in it is replaced.
        """
        content = self._content_hash
        if self.declared is not None and self.declared[1] == content:
            return self.declared[0]
        return content

    def completing(self, declared: Recipe) -> Recipe:
        """This recipe as the completion of another, whose hash it keeps."""
        return replace(self, declared=(declared.hash, self._content_hash))

    @property
    def _content_hash(self) -> str:
        content = asdict(self)
        del content["declared"]
        for name in _ADDED:
            if not content[name]:  # says nothing, and so older hashes stay what they were
                del content[name]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_ADDED = ("fused_groups", "probe", "unsupported")

RECIPES: Registry[Recipe] = Registry("recipe")
