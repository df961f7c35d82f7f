"""ConvNeXt: LayerNorm, GELU and LayerScale in float32 between int8 layers."""

from __future__ import annotations

from ptqbench.recipes.family import traced

MEMBERS = tuple(
    traced(f"convnext_{size}", size_ratio=3.6) for size in ("tiny", "small", "base", "large")
)
