"""Make torch's own layers from operators with constant weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_CONVOLUTIONS: Mapping[int, tuple[type[nn.Module], type[nn.Module]]] = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}
_BATCH_NORMS: Mapping[int, type[nn.Module]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}


def spread(value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    """Return one number per dimension, as ATen allows a single one for all."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


def make_convolution(weight: Tensor, bias: Tensor | None, geometry: Mapping[str, Any]) -> nn.Module:
    """Make a convolution.

    Args:
        weight: ``C_out×C_in/groups×…``, or ``C_in×C_out/groups×…`` if transposed.
        bias: ``C_out`` or None.
        geometry: ``stride``, ``padding``, ``dilation``, ``groups``, and ``output_padding`` of a
            transposed one.
    """
    dimensions = weight.dim() - 2
    transposed = "output_padding" in geometry
    groups = geometry["groups"]
    inputs, outputs = weight.shape[1] * groups, weight.shape[0]
    if transposed:
        inputs, outputs = weight.shape[0], weight.shape[1] * groups
    names = ("stride", "padding", "dilation", *(("output_padding",) if transposed else ()))
    options = {name: spread(geometry[name], dimensions) for name in names}
    with torch.device("meta"):
        layer = _CONVOLUTIONS[dimensions][transposed](
            inputs,
            outputs,
            tuple(weight.shape[2:]),
            groups=groups,
            bias=bias is not None,
            **options,
        )
    return _with(layer, weight=weight, bias=bias)


def make_linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Make a linear layer from weights ``C_out×C_in``."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return _with(layer, weight=weight, bias=bias)


def make_batch_norm(
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    dimensions: int,
) -> nn.Module:
    """Make a BatchNorm in evaluation mode, with scale and shift.

    Args:
        mean: Running mean, ``C``.
        variance: Running variance, ``C``.
        weight: Scale ``C``; None: 1.
        bias: Shift ``C``; None: 0.
        eps: Added to the variance.
        dimensions: Of its input, batch included.
    """
    with torch.device("meta"):
        layer = _BATCH_NORMS[dimensions](len(mean), eps=eps)
    layer.running_mean, layer.running_var = mean, variance
    layer.num_batches_tracked = torch.tensor(0)
    return _with(
        layer,
        weight=torch.ones_like(mean) if weight is None else weight,
        bias=torch.zeros_like(mean) if bias is None else bias,
    )


def merge_batch_norm(first: nn.Module, second: nn.Module) -> None:
    """Let a BatchNorm do what another one behind it does as well, in place.

    Args:
        first: Evaluation mode; its scale and shift are changed.
        second: Of as many channels.
    """
    scale, shift = _affine(second)
    layer: Any = first
    bias, weight = layer.bias.double() * scale + shift, layer.weight.double() * scale
    _with(first, bias=bias.to(layer.bias.dtype), weight=weight.to(layer.weight.dtype))


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm, float64."""
    layer: Any = norm
    scale = layer.weight.double() / (layer.running_var.double() + layer.eps).sqrt()
    return scale, layer.bias.double() - layer.running_mean.double() * scale


def _with(layer: nn.Module, **parameters: Tensor | None) -> nn.Module:
    for name, value in parameters.items():
        if value is not None:
            # Not a copy: nothing below changes a parameter in place.
            setattr(layer, name, nn.Parameter(value.detach(), requires_grad=False))
    return layer.eval()
