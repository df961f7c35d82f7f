"""Observers and qconfigs, which determine the ranges of weights and activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver, QConfig

from ptqbench.quantization.fast_histogram import QuickHistogramObserver
from ptqbench.quantization.pairing import Pairing, layer_pairing
from ptqbench.quantization.weight_observer import WeightObserver
from ptqbench.recipes import Recipe

RELU6_CAP = 6.0
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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
    """Create the qconfig of a recipe for calibration; `set_weight_grids` completes it.

    Args:
        recipe: Sets observer, per-channel weights and the side that gives up range.
        saturates: Whether the kernels that will run it add u8×s8 products in 16 bits.
        relu6: Whether the output is a ReLU that replaces a ReLU6.

    Returns:
        Unsigned 8-bit activations (7 bits if these give up one) and signed symmetric weights.
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
    weight = WeightObserver.with_args(per_channel=recipe.per_channel)
    return QConfig(activation=activation, weight=weight)


def set_weight_grids(prepared: nn.Module, recipe: Recipe, pairing: Pairing | None) -> None:
    """Let a calibrated module quantize its weights for an engine's kernels, in place.

    Calibration does not depend on it, so that engines with different kernels can share one.

    Args:
        prepared: With observers.
        recipe: Sets the side that gives up range.
        pairing: Which products the kernels add in 16 bits; None: none, so that nobody gives up
            anything.
    """
    seven_bits = pairing is not None and recipe.spare_bit == "weights"
    paired = pairing if recipe.spare_bit == "pairs" else None
    for module in prepared.modules():
        if isinstance(module, WeightObserver):  # of a function's weights
            module.seven_bits, module.pairing = seven_bits, paired
        qconfig = getattr(module, "qconfig", None)
        if isinstance(qconfig, QConfig) and isinstance(qconfig.weight(), WeightObserver):
            weight = WeightObserver.with_args(
                per_channel=recipe.per_channel,
                seven_bits=seven_bits,
                pairing=_pairing_in(module, paired),
            )
            module.qconfig = qconfig._replace(weight=weight)  # type: ignore[assignment]


def _pairing_in(module: nn.Module, pairing: Pairing | None) -> Pairing | None:
    """Which products are paired in a module, or in the layer that it is fused with."""
    layer = next((m for m in module.modules() if isinstance(m, _CONVOLUTIONS)), None)
    return pairing if layer is None else layer_pairing(pairing, layer.out_channels, layer.groups)
