"""ShuffleNetV2: two branches, concatenated and shuffled."""

from __future__ import annotations

from ptqbench.recipes.recipe import Group, Recipe
from ptqbench.settings.thresholds import Thresholds


def v2_groups() -> tuple[Group, ...]:
    """Return the fusion groups of ShuffleNetV2; a depthwise convolution has no ReLU of its own."""
    groups: list[Group] = [("conv1.0", "conv1.1", "conv1.2"), ("conv5.0", "conv5.1", "conv5.2")]
    for stage, blocks in ((2, 4), (3, 8), (4, 4)):
        for block in range(blocks):
            name = f"stage{stage}.{block}"
            if block == 0:
                branch = f"{name}.branch1"
                groups.append((f"{branch}.0", f"{branch}.1"))
                groups.append((f"{branch}.2", f"{branch}.3", f"{branch}.4"))
            branch = f"{name}.branch2"
            groups.append((f"{branch}.0", f"{branch}.1", f"{branch}.2"))
            groups.append((f"{branch}.3", f"{branch}.4"))
            groups.append((f"{branch}.5", f"{branch}.6", f"{branch}.7"))
    return tuple(groups)


SHUFFLENET_V2_X1_0 = Recipe(
    model="shufflenet_v2_x1_0",
    backend="onednn",
    fusion=v2_groups(),
    int8_modules=57,
    thresholds=Thresholds(size_ratio=3.2, speedup={"avx2": 1.3, "avx512_vnni": 1.5}),
    # In FX the branches of a concatenation are requantized; eager lowers to quantized::cat.
    flow="eager",
)
