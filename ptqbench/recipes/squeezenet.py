"""SqueezeNet: no BatchNorm, every convolution with its ReLU."""

from __future__ import annotations

from ptqbench.recipes.recipe import Group, Recipe
from ptqbench.settings.thresholds import Thresholds

_FIRES = (3, 4, 6, 7, 9, 10, 11, 12)


def v1_1_groups() -> tuple[Group, ...]:
    """Return the fusion groups of SqueezeNet 1.1: stem, fire modules and the convolutional head."""
    groups: list[Group] = [("features.0", "features.1"), ("classifier.1", "classifier.2")]
    for index in _FIRES:
        name = f"features.{index}"
        groups.extend(
            (f"{name}.{part}", f"{name}.{part}_activation")
            for part in ("squeeze", "expand1x1", "expand3x3")
        )
    return tuple(groups)


SQUEEZENET1_1 = Recipe(
    model="squeezenet1_1",
    backend="onednn",
    fusion=v1_1_groups(),
    int8_modules=26,
    thresholds=Thresholds(size_ratio=3.4, speedup={"avx2": 2.0, "avx512_vnni": 3.3}),
)
