"""EfficientNet: SiLU has no int8 kernel and runs in float between int8 convolutions."""

from __future__ import annotations

from ptqbench.recipes.recipe import Group, Recipe
from ptqbench.settings.thresholds import Thresholds


def b0_groups() -> tuple[Group, ...]:
    """Return the fusion groups of EfficientNet-B0: every convolution with its BatchNorm."""
    groups: list[Group] = [("features.0.0", "features.0.1"), ("features.8.0", "features.8.1")]
    for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1), 1):
        for block in range(blocks):
            name = f"features.{stage}.{block}.block"
            # Expansion (not in the first stage) and depthwise, then squeeze-excitation,
            # which has no BatchNorm, then the projection.
            before = 1 if stage == 1 else 2
            for part in (*range(before), before + 1):
                groups.append((f"{name}.{part}.0", f"{name}.{part}.1"))
    return tuple(groups)


EFFICIENTNET_B0 = Recipe(
    model="efficientnet_b0",
    backend="onednn",
    fusion=b0_groups(),
    int8_modules=82,
    thresholds=Thresholds(size_ratio=3.2, speedup={"avx2": 1.15, "avx512_vnni": 1.25}),
)
