"""MNASNet: inverted residuals as in MobileNetV2, with plain ReLU."""

from __future__ import annotations

from ptqbench.recipes.family import traced

MEMBERS = tuple(traced(f"mnasnet{width}") for width in ("0_5", "0_75", "1_0", "1_3"))
