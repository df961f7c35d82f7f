"""MaxViT: MBConv in int8, attention over windows and grids in float32."""

from __future__ import annotations

from ptqbench.recipes.family import traced

MEMBERS = (traced("maxvit_t", size_ratio=2.0, keep_float=("<add>",)),)
