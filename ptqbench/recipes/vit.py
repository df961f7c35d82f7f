"""Vision Transformer: attention and LayerNorm in float32, patches and MLPs in int8.

Attention is one operator of torch that has no int8 kernel; its projections, a third of the
weights, stay float32 with it.
"""

from __future__ import annotations

from ptqbench.recipes.family import traced

MEMBERS = tuple(
    traced(f"vit_{size}", size_ratio=1.9, keep_float=("*.self_attention", "<add>", "<cat>"))
    for size in ("b_16", "b_32", "l_16", "l_32", "h_14")
)
