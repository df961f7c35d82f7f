"""Inception v3: branches of convolution, BatchNorm and a functional ReLU, concatenated."""

from __future__ import annotations

from ptqbench.recipes.family import traced

MEMBERS = (traced("inception_v3", size_ratio=3.6),)
