"""Which products an int8 kernel adds in 16 bits, and what that allows its weights to be.

``vpmaddubsw`` multiplies unsigned activations by signed weights and adds two neighbouring products
in 16 bits, which saturates. Which two weights are neighbours depends on how an engine packs them.
Weights of opposite signs never exceed 16 bits together, and neither do two of one sign whose sum
is at most 128: 255 · 128 < 2¹⁵. `tests/quantization/test_pairing.py` finds the pairs of each engine
by running its kernels.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Pairing: TypeAlias = Literal["channels", "taps", "patches", "groups"]
"""``channels``: products are paired along the input channels of one kernel position, and the last
of an odd number stays alone (oneDNN); so no weight of a depthwise convolution has a partner.
``taps``: they are paired in the order (row, column, channel), across kernel positions (FBGEMM).
``patches``: the same, except that depthwise convolutions have a kernel that adds in 32 bits
(ONNX Runtime).
``groups``: as ``channels``, but as ``taps`` in convolutions with groups that are not depthwise
(OpenVINO)."""

SUM = 128
"""The largest sum of two weights of one sign that stays in 16 bits with any activation."""
_LIMIT = SUM - 1
"""The largest integer, and the largest sum before rounding, which can add one to it."""
_FLOOR = 2.0**-16
"""Smallest share of the largest scale. BatchNorm leaves channels whose weights are next to nothing
but whose biases are not. Kernels round a bias to multiples of the weights' scale times the input's,
as an integer of 32 bits, which would overflow. Such a channel is far below a step of the output."""


def layer_pairing(pairing: Pairing | None, outputs: int, groups: int) -> Pairing | None:
    """Return which products of a layer are paired; None: none.

    Args:
        pairing: Of the kernels of a backend.
        outputs: Output channels of the layer.
        groups: Of a convolution; 1 for a linear layer.
    """
    if pairing == "groups":
        return "channels" if groups in (1, outputs) else "taps"
    return None if pairing == "patches" and 1 < groups == outputs else pairing


def pairs_of(weights: Tensor, pairing: Pairing) -> Tensor:
    """Arrange weights, or what is computed from each of them, by the pairs that a kernel adds.

    Args:
        weights: ``O×I×…`` (convolution) or ``O×I`` (linear layer).
        pairing: Of the kernel.

    Returns:
        ``O×n×2``; a weight without a partner is paired with zero.
    """
    channels_last = weights.movedim(1, -1).flatten(1, -2) if weights.dim() > 2 else weights[:, None]
    if pairing != "channels":
        channels_last = channels_last.flatten(1)[:, None]
    padded = F.pad(channels_last, (0, channels_last.shape[-1] % 2))
    return padded.reshape(len(weights), -1, 2)


def largest_sums(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the most and the least that two products of a channel add up to.

    Either factor can be zero, so that opposite signs do not compensate each other.

    Args:
        pairs: ``O×n×2``, from `pairs_of`.

    Returns:
        Two tensors of ``O`` numbers: at least 0, and at most 0.
    """
    return pairs.clamp(min=0).sum(-1).amax(1), pairs.clamp(max=0).sum(-1).amin(1)


def weight_scales(weights: Tensor, pairing: Pairing | None) -> Tensor:
    """Return the smallest symmetric scale of each output channel that fits a kernel.

    The largest weight of a channel becomes ±127, or less where two paired weights would exceed
    `SUM` together after rounding, or where a channel is next to nothing beside the others.

    Args:
        weights: ``O×I×…`` float32.
        pairing: Which products the kernel adds in 16 bits; None: none.

    Returns:
        ``O`` scales, float32, positive.
    """
    exact = weights.detach()
    if pairing is None:
        largest = exact.flatten(1).abs().amax(1)
    else:
        most, least = largest_sums(pairs_of(exact, pairing))
        largest = torch.maximum(most, -least)
    scales = largest.clamp(min=float(largest.max()) * _FLOOR) / _LIMIT
    return torch.where(scales > 0, scales, 1.0)
