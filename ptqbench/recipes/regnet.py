"""RegNet: grouped convolutions; the Y models have squeeze-excitation, the X models do not."""

from __future__ import annotations

from ptqbench.recipes.family import traced

_SIZES = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")

MEMBERS = (
    *(traced(f"regnet_x_{size}", size_ratio=3.4) for size in _SIZES),
    *(traced(f"regnet_y_{size}", size_ratio=3.4) for size in (*_SIZES, "128gf")),
)
