"""The observer of weights: symmetric grids without a clipped end that the kernels can add."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization import ObserverBase

from ptqbench.quantization.pairing import Pairing, weight_scales
from ptqbench.quantization.torch_warnings import known_deprecations_ignored

HALF_RANGE = 64
"""Largest integer of 7-bit weights: two of them add up to what `pairing.SUM` allows."""
_FULL_RANGE = 127


class WeightObserver(ObserverBase):
    """Determine the scales of weights from the largest one, or the largest pair, of a channel.

    torch's symmetric observers take the middle of −128 … 127 as the largest weight, 127.5, so that
    the largest positive one of a channel is clipped by half a step: in a depthwise filter of nine
    weights that weight is most of the filter.

    Args:
        per_channel: Whether each output channel has its own scale.
        seven_bits: Whether weights are limited to ±64.
        pairing: Which products the kernels add in 16 bits, so that the scales leave room for
            their sums; None: any two weights may be ±127.
    """

    def __init__(
        self,
        per_channel: bool = True,
        seven_bits: bool = False,
        pairing: Pairing | None = None,
        factory_kwargs: Any = None,
    ) -> None:
        super().__init__(dtype=torch.qint8, is_dynamic=False)
        self.per_channel, self.seven_bits, self.pairing = per_channel, seven_bits, pairing
        self.qscheme = torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric
        self.ch_axis = 0
        # What qint8 holds: scales alone keep integers within the grid.
        self.quant_min, self.quant_max = -128, 127
        self.weights: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Keep and return the weights, ``O×I×…`` float32."""
        self.weights = x.detach()
        return x

    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return scales (float32) and zero points (all 0), per channel or of the tensor."""
        assert self.weights is not None, "forward was not called"
        if self.seven_bits:
            scales = weight_scales(self.weights, None) * (_FULL_RANGE / HALF_RANGE)
        else:
            scales = weight_scales(self.weights, self.pairing)
        if not self.per_channel:
            scales = scales.amax().reshape(1)
        return scales, torch.zeros(len(scales), dtype=torch.int64)

    def rounded(self, weights: Tensor) -> Tensor:
        """Return weights, ``O×I×…`` float32, as their integers and scales stand for them."""
        self(weights)
        scales, zero_points = self.calculate_qparams()
        scales = scales.expand(len(weights)).contiguous()
        zero_points = zero_points.expand(len(weights)).contiguous()
        with known_deprecations_ignored():
            quantized = torch.quantize_per_channel(
                weights.detach(), scales, zero_points, 0, torch.qint8
            )
        return quantized.dequantize()
