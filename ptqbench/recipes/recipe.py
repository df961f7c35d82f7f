"""The recipe record and its registry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from ptqbench.registry import Registry

Group = tuple[str, ...]
"""Module names that become one fused module: convolution, BatchNorm, ReLU."""

Flow = Literal["fx", "eager"]


@dataclass(frozen=True)
class Thresholds:
    """What a gate holds a measurement against.

    Attributes:
        accuracy: Share of float32 top-1 that int8 must keep (MLPerf's rule is 0.99).
        agreement: Share of images on which int8 and float32 must predict the same class.
        size_ratio: How many times smaller the int8 file must be.
        speedup: How many times faster int8 must be, by instruction set; an instruction
            set that is not listed has not been measured and promises nothing.
    """

    accuracy: float = 0.99
    agreement: float = 0.95
    size_ratio: float = 3.0
    speedup: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """How an architecture is quantized after training, and what must come of it.

    Attributes:
        model: Name of the architecture.
        backend: Recommended backend.
        fusion: Fusion groups by module name, all of them.
        int8_modules: How many convolutions and linear layers become int8.
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
        keep_float: Module names that stay float32.
    """

    model: str
    backend: str
    fusion: tuple[Group, ...]
    int8_modules: int
    thresholds: Thresholds
    flow: Flow = "fx"
    observer: Literal["histogram", "minmax"] = "histogram"
    per_channel: bool = True
    spare_bit: Literal["weights", "activations", "none"] = "weights"
    calibration_images: int = 256
    keep_float: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change when anything in the recipe does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


RECIPES: Registry[Recipe] = Registry("recipe")


def register(recipe: Recipe) -> Recipe:
    """Add a recipe under the name of its model."""
    return RECIPES.add(recipe.model, recipe)
