"""Unpack the weights of int8 layers from what torch's engines packed them into."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ptqbench.backends.graph import IntegerWeights


def unpack(packed: Any, operator: str) -> IntegerWeights | None:
    """Unpack a ``ConvNdPackedParamsBase`` or ``LinearPackedParamsBase``.

    Args:
        packed: The TorchScript object that an engine stores its weights in.
        operator: Name of the operator that uses it, ``quantized::conv2d``.

    Returns:
        None if they are not integers: dynamic layers can also pack half precision.
    """
    kind = str(packed._type()) if hasattr(packed, "_type") else repr(packed)
    if "Linear" in kind:
        weight, bias = torch.ops.quantized.linear_unpack(packed)
        return _weights(weight, bias)
    dims = 1 if "conv1d" in operator else 3 if "Conv3d" in kind else 2
    # One-dimensional layers live in two-dimensional packed parameters, with a height of one.
    prefix = f"conv{max(dims, 2)}d"
    weight, bias = getattr(torch.ops.quantized, f"{prefix}_unpack")(packed)

    def numbers(quantity: str) -> tuple[int, ...]:
        return tuple(getattr(torch.ops.quantized, f"{prefix}_{quantity}")(packed))[-dims:]

    return _weights(
        weight,
        bias,
        dims,
        stride=numbers("stride"),
        padding=numbers("padding"),
        dilation=numbers("dilation"),
        groups=int(getattr(torch.ops.quantized, f"{prefix}_groups")(packed)),
        transposed=bool(getattr(torch.ops.quantized, f"{prefix}_transpose")(packed)),
    )


def _weights(
    weight: Tensor, bias: Tensor | None, dims: int = 0, **geometry: Any
) -> IntegerWeights | None:
    if not weight.is_quantized:
        return None
    per_channel = weight.qscheme() in {torch.per_channel_affine, torch.per_channel_symmetric}
    if per_channel:
        scales, zero_points = weight.q_per_channel_scales(), weight.q_per_channel_zero_points()
    else:
        scales = torch.tensor([weight.q_scale()])
        zero_points = torch.tensor([weight.q_zero_point()])
    return IntegerWeights(
        integers=weight.int_repr().squeeze(2) if dims == 1 else weight.int_repr(),
        scales=scales.double(),
        zero_points=zero_points.long(),
        per_channel=per_channel,
        bias=None if bias is None else bias.detach(),
        **geometry,
    )
