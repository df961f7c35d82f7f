"""Swin Transformer, v1 and v2: windowed attention and LayerNorm in float32, the rest in int8.

Attention and its two projections are one function to torch.fx, and so stay float32 together.
"""

from __future__ import annotations

from ptqbench.recipes.family import traced

MEMBERS = tuple(
    traced(f"swin_{version}{size}", size_ratio=1.8, keep_float=("*.attn", "<add>"))
    for version in ("", "v2_")
    for size in ("t", "s", "b")
)
