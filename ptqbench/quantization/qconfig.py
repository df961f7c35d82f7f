"""Observers and qconfigs, which determine the ranges of weights and activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization import (
    MinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
)

from ptqbench.quantization.fast_histogram import QuickHistogramObserver
from ptqbench.recipes import Recipe

RELU6_CAP = 6.0

_SEVEN_BITS: dict[str, Any] = {"quant_min": -64, "quant_max": 63}
"""255 · 64 · 2 < 2¹⁵: two products of an AVX2 ``vpmaddubsw`` cannot saturate."""


class CappedHistogramObserver(QuickHistogramObserver):
    """Histogram observer after a ReLU that replaces a ReLU6.

    The fused kernels support ReLU only. Values are capped at 6 before they are counted and passed
    on, so that calibration computes ReLU6 exactly; with a range that ends at 6 at most, the int8
    kernel's clamp does the same.
    """

    def forward(self, x_orig: Tensor) -> Tensor:
        """Count and return ``x_orig`` (any shape, float32) capped at 6."""
        capped: Tensor = super().forward(x_orig.clamp(max=RELU6_CAP))
        return capped


class CappedMinMaxObserver(MinMaxObserver):
    """Min-max observer after a ReLU that replaces a ReLU6, capped at 6."""

    def forward(self, x_orig: Tensor) -> Tensor:
        """Count and return ``x_orig`` (any shape, float32) capped at 6."""
        capped: Tensor = super().forward(x_orig.clamp(max=RELU6_CAP))  # type: ignore[no-untyped-call]
        return capped


def make_qconfig(recipe: Recipe, *, saturates: bool, relu6: bool = False) -> QConfig:
    """Create the qconfig of a recipe.

    Args:
        recipe: Sets observer, per-channel weights and the side that gives up a bit.
        saturates: Whether the kernels that will run it add u8×s8 products in 16 bits.
        relu6: Whether the output is a ReLU that replaces a ReLU6.

    Returns:
        Unsigned 8-bit activations (7 bits if these give up the bit) and signed 8-bit
        symmetric weights (7 bits if these do).
    """
    observers: dict[tuple[str, bool], Any] = {
        ("histogram", False): QuickHistogramObserver,
        ("histogram", True): CappedHistogramObserver,
        ("minmax", False): MinMaxObserver,
        ("minmax", True): CappedMinMaxObserver,
    }
    activation = observers[recipe.observer, relu6].with_args(
        dtype=torch.quint8, reduce_range=saturates and recipe.spare_bit == "activations"
    )
    weight_observer = PerChannelMinMaxObserver if recipe.per_channel else MinMaxObserver
    scheme = torch.per_channel_symmetric if recipe.per_channel else torch.per_tensor_symmetric
    bits = _SEVEN_BITS if saturates and recipe.spare_bit == "weights" else {}
    weight = weight_observer.with_args(dtype=torch.qint8, qscheme=scheme, **bits)
    return QConfig(activation=activation, weight=weight)
