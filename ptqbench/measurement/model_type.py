"""What a measurement asks of the thing it measures."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Model = Callable[[Tensor], Tensor]
"""A loaded artifact: float32 images N x 3 x H x W to float32 logits N x classes."""
