"""MobileNets: depthwise convolutions whose channels differ widely in range."""

from __future__ import annotations

from ptqbench.recipes.recipe import Group, Recipe
from ptqbench.settings.thresholds import Thresholds


def v2_groups() -> tuple[Group, ...]:
    """Return the fusion groups of MobileNetV2: ReLU6 after all convolutions but the projections."""
    groups: list[Group] = [("features.0.0", "features.0.1", "features.0.2")]
    for index in range(1, 18):
        name = f"features.{index}.conv"
        expansions = () if index == 1 else (0,)
        depthwise = len(expansions)
        for part in (*expansions, depthwise):
            groups.append((f"{name}.{part}.0", f"{name}.{part}.1", f"{name}.{part}.2"))
        groups.append((f"{name}.{depthwise + 1}", f"{name}.{depthwise + 2}"))
    groups.append(("features.18.0", "features.18.1", "features.18.2"))
    return tuple(groups)


_V3_LARGE_RELU = frozenset(range(1, 7))
_V3_LARGE_SQUEEZE = frozenset({4, 5, 6, 11, 12, 13, 14, 15})
"""Blocks with ReLU (the others have hard-swish), and blocks with squeeze-excitation."""


def v3_large_groups() -> tuple[Group, ...]:
    """Return the fusion groups of MobileNetV3-Large: hard-swish stays a module of its own."""
    groups: list[Group] = [("features.0.0", "features.0.1")]
    for index in range(1, 16):
        name = f"features.{index}.block"
        relu = index in _V3_LARGE_RELU
        part = 0
        for _ in range(1 if index == 1 else 2):  # expansion (not in the first), depthwise
            pair = (f"{name}.{part}.0", f"{name}.{part}.1")
            groups.append((*pair, f"{name}.{part}.2") if relu else pair)
            part += 1
        if index in _V3_LARGE_SQUEEZE:
            groups.append((f"{name}.{part}.fc1", f"{name}.{part}.activation"))
            part += 1
        groups.append((f"{name}.{part}.0", f"{name}.{part}.1"))
    groups.append(("features.16.0", "features.16.1"))
    return tuple(groups)


MOBILENET_V2 = Recipe(
    model="mobilenet_v2",
    backend="x86",
    fusion=v2_groups(),
    int8_modules=53,
    thresholds=Thresholds(size_ratio=3.2, speedup={"avx2": 1.3, "avx512_vnni": 1.7}),
)
MOBILENET_V3_LARGE = Recipe(
    model="mobilenet_v3_large",
    backend="onednn",
    fusion=v3_large_groups(),
    int8_modules=64,
    thresholds=Thresholds(size_ratio=3.4, speedup={"avx2": 1.5, "avx512_vnni": 1.8}),
)
