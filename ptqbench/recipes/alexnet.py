"""AlexNet: no BatchNorm, two large linear layers that hold most of the weights."""

from __future__ import annotations

from ptqbench.recipes.family import traced

MEMBERS = (traced("alexnet", size_ratio=3.8),)
