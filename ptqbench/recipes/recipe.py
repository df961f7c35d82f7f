"""The recipe record and its registry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from ptqbench.core.names import nearest
from ptqbench.core.registry import Registry
from ptqbench.errors import UserError
from ptqbench.recipes.published_accuracy import PUBLISHED, Published
from ptqbench.settings.weights_specifier import PROBE

Group = tuple[str, ...]
"""Module names that become one fused module: convolution, BatchNorm, ReLU."""

Flow = Literal["fx", "eager"]


INSTRUCTION_SETS = ("avx2", "avx512", "avx512_vnni", "amx", "neon")
"""Instruction sets that a speedup threshold can be for."""

TOP1_POLICIES = ("accuracy", "accuracy_points", "reference_top1")
"""Thresholds of which exactly one is in force: each is another way to judge top-1."""

SHARE_KEPT = 0.99
"""What ``accuracy`` is where no policy is chosen (MLPerf's rule)."""


MEASURED = "measured"
"""Backend of a recipe that recommends none: the fastest on the machine at hand is looked for."""


@dataclass(frozen=True)
class Thresholds:
    """What a gate holds a measurement against.

    Top-1 is judged by one policy: by ``accuracy``, ``accuracy_points`` or
    ``reference_top1``. The other two are None.

    Attributes:
        accuracy: Share of float32 top-1 that int8 must keep; 0.99 unless another policy is
            chosen.
        accuracy_points: Percentage points of top-1 that int8 may lose.
        reference_top1: Top-1 that int8 must reach, as a fraction of 1, whatever float32
            does: a published value, say, less what may be lost.
        top5: Share of float32 top-5 that int8 must keep; None: shown, not judged.
        agreement: Share of images on which int8 and float32 must predict the same class.
        sqnr_db: Signal-to-quantization-noise ratio in dB that the logits must have; None:
            shown and not judged, except on images without labels.
        size_ratio: How many times smaller the int8 file must be.
        max_bytes: How large the int8 file may be; None: no budget.
        speedup: How many times faster int8 must be, by instruction set; an instruction
            set that is not listed has not been measured and promises nothing.

    Raises:
        UserError: More than one policy for top-1 is given.
    """

    accuracy: float | None = None
    accuracy_points: float | None = None
    reference_top1: float | None = None
    top5: float | None = None
    agreement: float = 0.95
    sqnr_db: float | None = None
    size_ratio: float = 3.0
    max_bytes: int | None = None
    speedup: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """See that there is one policy for top-1."""
        given = [name for name in TOP1_POLICIES if getattr(self, name) is not None]
        if len(given) > 1:
            raise UserError(two_policies(given, "Thresholds"))
        if not given:
            object.__setattr__(self, "accuracy", SHARE_KEPT)

    @property
    def top1_policy(self) -> tuple[str, float]:
        """Name and value of the policy that top-1 is judged by."""
        return next(
            (name, value) for name in TOP1_POLICIES if (value := getattr(self, name)) is not None
        )

    def replaced(self, changes: Mapping[str, Any]) -> Thresholds:
        """Return these thresholds with some replaced.

        Args:
            changes: Values by field. A policy for top-1 replaces the one in force; speedups
                replace those of their instruction sets.

        Raises:
            UserError: Two policies for top-1 are set, or there is no such threshold.
        """
        known = [each.name for each in fields(self)]
        for name in changes:
            if name not in known:
                raise UserError(f"Unknown threshold {name!r}. {nearest(name, known)}")
        values = dict(changes)
        if any(values.get(name) is not None for name in TOP1_POLICIES):
            values = {**dict.fromkeys(TOP1_POLICIES), **values}
        return replace(self, **{**values, "speedup": {**self.speedup, **values.get("speedup", {})}})


def two_policies(names: Sequence[str], where: str) -> str:
    """What is said to somebody who asks for several policies at once."""
    return (
        f"{where} sets {' and '.join(names)}, but top-1 is judged by one policy: accuracy (share "
        "of float32's top-1 kept), accuracy_points (percentage points that may be lost) or "
        "reference_top1 (a fixed value). Keep one of them."
    )


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
