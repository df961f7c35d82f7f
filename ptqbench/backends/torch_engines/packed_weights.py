"""Unpack the weights of int8 layers from what the engines made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedWeights:
    """Weights of an int8 layer.

    Attributes:
        integers: int8, ``C_out×C_in/groups×kH×kW`` for a convolution, ``C_out×C_in`` for
            a linear layer.
        scales: float64, one per output channel, or one.
        zero_points: int64, likewise.
        per_channel: Whether every output channel has a scale of its own.
        bias: float32 ``C_out``, or None.
        stride: Of a convolution, as padding and dilation; empty for a linear layer.
        padding: See ``stride``.
        dilation: See ``stride``.
        groups: Of a convolution; 1 for a linear layer.
        transposed: Whether it is a transposed convolution.
    """

    integers: Tensor
    scales: Tensor
    zero_points: Tensor
    per_channel: bool
    bias: Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False

    @property
    def is_depthwise(self) -> bool:
        """Whether every output channel reads one input channel."""
        return self.integers.dim() > 2 and self.integers.shape[1] == 1


def unpack(packed: Any) -> PackedWeights | None:
    """Unpack a ``ConvNdPackedParamsBase`` or ``LinearPackedParamsBase``.

    Args:
        packed: The TorchScript object that an engine keeps its weights in.

    Returns:
        None if they are no integers: dynamic layers can also pack half precision.
    """
    kind = str(packed._type()) if hasattr(packed, "_type") else repr(packed)
    if "Linear" in kind:
        weight, bias = torch.ops.quantized.linear_unpack(packed)
        return _weights(weight, bias)
    dims = next((d for d in (1, 2, 3) if f"Conv{d}d" in kind), 2)
    # conv1d layers live in two-dimensional packed parameters.
    prefix = f"conv{max(dims, 2)}d"
    weight, bias = getattr(torch.ops.quantized, f"{prefix}_unpack")(packed)

    def numbers(what: str) -> tuple[int, ...]:
        return tuple(getattr(torch.ops.quantized, f"{prefix}_{what}")(packed))

    return _weights(
        weight,
        bias,
        stride=numbers("stride"),
        padding=numbers("padding"),
        dilation=numbers("dilation"),
        groups=int(getattr(torch.ops.quantized, f"{prefix}_groups")(packed)),
        transposed=bool(getattr(torch.ops.quantized, f"{prefix}_transpose")(packed)),
    )


def _weights(weight: Tensor, bias: Tensor | None, **geometry: Any) -> PackedWeights | None:
    if not weight.is_quantized:
        return None
    per_channel = weight.qscheme() in {torch.per_channel_affine, torch.per_channel_symmetric}
    if per_channel:
        scales, zero_points = weight.q_per_channel_scales(), weight.q_per_channel_zero_points()
    else:
        scales = torch.tensor([weight.q_scale()])
        zero_points = torch.tensor([weight.q_zero_point()])
    return PackedWeights(
        integers=weight.int_repr(),
        scales=scales.double(),
        zero_points=zero_points.long(),
        per_channel=per_channel,
        bias=None if bias is None else bias.detach(),
        **geometry,
    )
