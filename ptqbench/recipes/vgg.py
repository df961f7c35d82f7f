"""VGG: plain convolutions with ReLU, with BatchNorm or without; three large linear layers."""

from __future__ import annotations

from ptqbench.recipes.family import traced

MEMBERS = tuple(
    traced(f"vgg{depth}{norm}", size_ratio=3.8)
    for depth in (11, 13, 16, 19)
    for norm in ("", "_bn")
)
