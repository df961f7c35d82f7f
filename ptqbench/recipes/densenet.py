"""DenseNet: BatchNorm and ReLU before the convolution, on everything that came before.

The first BatchNorm of a layer follows a concatenation: it cannot be folded into a convolution
and becomes an int8 operator of its own, with its ReLU.
"""

from __future__ import annotations

from ptqbench.recipes.family import traced

MEMBERS = tuple(traced(f"densenet{depth}") for depth in (121, 161, 169, 201))
