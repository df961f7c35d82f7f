"""ConvNeXt: LayerNorm, GELU and LayerScale in float32 between int8 layers.

So is the residual stream: LayerScale begins at 1e-6, and sums of values that far apart are
refused by qnnpack (``scale ratio must be in [2**-14, 2**8) range``) and lose the smaller one
in int8 anywhere.
"""

from __future__ import annotations

from ptqbench.recipes.family import traced

_FLOAT = ("<add>",)

MEMBERS = tuple(
    traced(f"convnext_{size}", size_ratio=3.6, keep_float=_FLOAT)
    for size in ("tiny", "small", "base", "large")
)
