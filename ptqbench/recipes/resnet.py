"""ResNet: every convolution has its BatchNorm, and a ReLU where no addition follows."""

from __future__ import annotations

from ptqbench.recipes.recipe import Group, Recipe
from ptqbench.settings.thresholds import Thresholds


def basic_block_groups(blocks: tuple[int, ...]) -> tuple[Group, ...]:
    """Return the fusion groups of a ResNet of basic blocks, ``blocks`` per stage.

    The second convolution of a block is followed by the residual addition: its ReLU
    belongs to the sum and must not be folded into the convolution.
    """
    groups: list[Group] = [("conv1", "bn1", "relu")]
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            groups.append((f"{name}.conv1", f"{name}.bn1", f"{name}.relu"))
            groups.append((f"{name}.conv2", f"{name}.bn2"))
            if stage > 1 and block == 0:
                groups.append((f"{name}.downsample.0", f"{name}.downsample.1"))
    return tuple(groups)


RESNET18 = Recipe(
    model="resnet18",
    backend="onednn",
    fusion=basic_block_groups((2, 2, 2, 2)),
    int8_modules=21,
    thresholds=Thresholds(size_ratio=3.8, speedup={"avx2": 1.7, "avx512_vnni": 2.5}),
)
