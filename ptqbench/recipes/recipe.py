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

    def thresholds_for(self, weights: str) -> Thresholds:
        """Thresholds under weights from a source, unless settings replace them.

        Args:
            weights: Source of the weights; under ``probe`` other thresholds may apply.
        """
        return self.thresholds.replaced(self.probe) if weights == PROBE else self.thresholds

    @property
    def published(self) -> Mapping[str, Published]:
        """Accuracies that torchvision published in float32 and int8, by the name of the weights.

        They are not part of the recipe's hash: no gate uses them.
        """
        return {w: record for (model, w), record in PUBLISHED.items() if model == self.model}

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change with any field."""
        content = asdict(self)
        for name in _ADDED:
            if not content[name]:  # unset; hashes from before the field existed stay valid
                del content[name]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_ADDED = ("fused_groups", "probe", "unsupported")
"""Fields that are not part of the hash while they are unset."""


@dataclass(frozen=True)
class CompletedRecipe:
    """A recipe together with what its model's graph determines.

    Attributes:
        recipe: The recipe as declared.
        groups: All fusion groups.
        int8_modules: How many convolutions and linear layers become int8.
        keep_float: Paths of the modules that stay float32, and functions; no wildcards.
        flow: ``fx`` or ``eager``.
    """

    recipe: Recipe
    groups: tuple[Group, ...]
    int8_modules: int
    keep_float: tuple[str, ...]
    flow: Flow

    @property
    def model(self) -> str:
        """Name of the architecture."""
        return self.recipe.model

    @property
    def hash(self) -> str:
        """Hash of the recipe as declared, which identifies artifacts."""
        return self.recipe.hash

    def written_out(self) -> Recipe:
        """A recipe that declares all of this by name, to be saved and edited."""
        return replace(
            self.recipe,
            fusion=self.groups,
            int8_modules=self.int8_modules,
            keep_float=self.keep_float,
            flow=self.flow,
            fused_groups=None,
        )


RECIPES: Registry[Recipe] = Registry("recipe")
