"""Scales of weights with the least squared error of a layer's output.

The largest weight of a channel determines its scale; a smaller scale clips a few weights and
rounds the others more finely. What that does to the output follows from the inputs: their rows (a
patch of the image for each output position) times the weights' error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptqbench.quantization.bias_correction import quantized_layers
from ptqbench.quantization.pairing import SUM, Pairing, weight_scales

SHARES = (*(1 - 0.01 * step for step in range(11)), 0.87, 0.84, 0.8, 0.75, 0.7, 0.6)
"""Scales that are tried, as shares of the smallest that clips nothing: clipping one weight costs
more than the others gain, but for a few per cent, or where one pair is much larger than the rest.
"""
MOST_ROWS = 1024
"""Rows of inputs that are kept for a layer."""
_LARGEST = 127


class InputRows:
    """A sample of a layer's inputs, one row for each output.

    Args:
        layer: Convolution in two dimensions or linear layer.
        images: How many images it will see.
    """

    def __init__(self, layer: nn.Module, images: int) -> None:
        self._layer = layer
        self._per_image = max(1, MOST_ROWS // max(1, images))
        self._parts: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(0)

    def add(self, inputs: Tensor) -> None:
        """Add inputs, ``N×…`` float32."""
        if isinstance(self._layer, nn.Linear):
            rows = inputs.flatten(0, -2)[:, None]
            self._parts.append(rows[: self._per_image * len(inputs)])
        else:
            self._parts.append(patches(self._layer, inputs, self._per_image, self._generator))

    def rows(self) -> Tensor:
        """Return what was sampled: ``R×G×d`` float32, for ``G`` groups of ``d`` inputs."""
        return torch.cat(self._parts)[:MOST_ROWS]


def patches(layer: Any, inputs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return what a convolution multiplies its weights by at some output positions of each image.

    Args:
        layer: Convolution in two dimensions with zeros as padding.
        inputs: ``N×C×H×W`` float32.
        count: Positions of an image, drawn without repetition; all if there are fewer.
        generator: Draws them.

    Returns:
        ``R×G×d`` float32; ``d`` is in the order of the weights of an output channel.
    """
    (height, width), (down, right) = layer.kernel_size, layer.padding
    spans = [(k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    padded = F.pad(inputs, (right, right, down, down))
    windows = padded.unfold(2, spans[0], layer.stride[0]).unfold(3, spans[1], layer.stride[1])
    windows = windows[..., :: layer.dilation[0], :: layer.dilation[1]]
    columns = windows.shape[3]
    chosen = torch.randperm(windows.shape[2] * columns, generator=generator)[:count]
    sampled = windows[:, :, chosen // columns, chosen % columns]  # N×C×P×h×w
    groups = layer.groups
    return (
        sampled.movedim(2, 1)
        .flatten(0, 1)
        .reshape(-1, groups, inputs.shape[1] // groups * height * width)
    )


@contextmanager
def input_rows(prepared: nn.Module, images: int) -> Iterator[Mapping[str, InputRows]]:
    """Sample the inputs of the layers that become int8, by path, while a module runs.

    Args:
        prepared: With observers.
        images: How many images it will run.
    """
    samples: dict[str, InputRows] = {}

    def recorder(sample: InputRows) -> Callable[[nn.Module, Any], None]:
        return lambda layer, inputs: sample.add(inputs[0])

    handles = []
    for name, layer, _ in quantized_layers(prepared):
        samples[name] = InputRows(layer, images)
        handles.append(layer.register_forward_pre_hook(recorder(samples[name])))
    try:
        yield samples
    finally:
        for handle in handles:
            handle.remove()


def output_errors(rows: Tensor, errors: Tensor, *, centred: bool) -> Tensor:
    """Return the mean squared error of each output channel.

    Args:
        rows: Inputs ``R×G×d``.
        errors: Of the weights, ``O×d``; the channels of a group follow one another.
        centred: Without the mean error, which a bias takes back.

    Returns:
        ``O``.
    """
    groups = rows.shape[1]
    grouped = errors.reshape(groups, -1, errors.shape[1])
    outputs = torch.einsum("rgd,god->rgo", rows, grouped).flatten(1)
    if centred:
        outputs = outputs - outputs.mean(0)
    return outputs.square().mean(0)


def fitted_integers(weights: Tensor, scales: Tensor, pairing: Pairing | None) -> Tensor:
    """Return the integers nearest to weights that a kernel can add without saturating.

    Where two paired integers of one sign exceed `SUM` together, both give way alike.

    Args:
        weights: ``O×I×…`` float32.
        scales: ``O``.
        pairing: Which products the kernel adds in 16 bits; None: none.

    Returns:
        Whole numbers, shaped as the weights, float32.
    """
    shape = (-1, *[1] * (weights.dim() - 1))
    integers = (weights / scales.view(shape)).round().clamp(-_LARGEST, _LARGEST)
    if pairing is None:
        return integers
    if pairing != "channels":
        raise ValueError(f"Expected pairs of channels, but got {pairing!r}.")
    last = integers.movedim(1, -1)
    channels = last.shape[-1]
    pairs = F.pad(last, (0, channels % 2)).unflatten(-1, (-1, 2))
    same = pairs[..., 0] * pairs[..., 1] > 0
    excess = torch.where(same, (pairs.abs().sum(-1) - SUM).clamp(min=0), 0.0)
    less = torch.stack([(excess / 2).ceil(), (excess / 2).floor()], -1)
    fitted = pairs - pairs.sign() * less
    return fitted.flatten(-2)[..., :channels].movedim(-1, 1).contiguous()


@dataclass(frozen=True)
class FittedWeights:
    """Weights on grids.

    Attributes:
        values: As int8 stands for them, ``O×I×…`` float32.
        scales: ``O`` float32.
    """

    values: Tensor
    scales: Tensor


def least_error(
    weights: Tensor, rows: Tensor, pairing: Pairing | None, *, centred: bool
) -> FittedWeights:
    """Choose for each output channel the scale whose weights give the least error of the output.

    Args:
        weights: ``O×I×…`` float32.
        rows: Inputs of the layer, ``R×G×d``.
        pairing: Which products the kernel adds in 16 bits; None: none.
        centred: Whether biases are corrected afterwards.
    """
    shape = (-1, *[1] * (weights.dim() - 1))
    largest = weight_scales(weights, pairing)
    best = torch.full((len(weights),), torch.inf)
    values, scales = torch.zeros_like(weights), largest
    for share in SHARES:
        tried = largest * share
        candidate = fitted_integers(weights, tried, pairing) * tried.view(shape)
        errors = output_errors(rows, (candidate - weights).flatten(1), centred=centred)
        better = errors < best
        best = torch.where(better, errors, best)
        values = torch.where(better.view(shape), candidate, values)
        scales = torch.where(better, tried, scales)
    return FittedWeights(values, scales)
