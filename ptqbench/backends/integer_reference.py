"""int8 layers in exact integer arithmetic, and what a kernel that adds in 16 bits makes of them.

Integers are carried in float64, which is exact below 2⁵³; a sum of u8×s8 products stays
below 2⁴⁰ for every layer that fits into memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ptqbench.backends.graph import Graph, IntegerWeights, Operator
from ptqbench.quantization.pairing import Pairing, largest_sums, layer_pairing, pairs_of

_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_INT16 = (-(2**15), 2**15 - 1)


@dataclass(frozen=True)
class QuantizedTensor:
    """Integers with the scale and zero point that they stand for, per tensor.

    Attributes:
        integers: uint8 or int8.
        scale: Of one step.
        zero_point: The integer that means zero.
    """

    integers: Tensor
    scale: float
    zero_point: int


@dataclass(frozen=True)
class LayerTraffic:
    """What an int8 layer read and wrote when its file ran.

    Attributes:
        layer: Of the graph that ran.
        source: Its input.
        output: Its output.
    """

    layer: Operator
    source: QuantizedTensor
    output: QuantizedTensor


@dataclass(frozen=True)
class ExactRun:
    """A file as it ran, with the traffic of its int8 layers.

    Attributes:
        graph: What ran.
        traffic: Of the layers whose input and output could be recorded.
        error: Why there is no traffic; empty if there is.
    """

    graph: Graph
    traffic: tuple[LayerTraffic, ...]
    error: str = ""


def exact_output(
    layer: Operator,
    source: QuantizedTensor,
    *,
    integer_bias: bool = True,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The correct output of a layer, as integers in float64.

    The sum of products is exact; only the final scaling rounds, to the nearest, once.

    Args:
        layer: With integer weights and output range.
        source: Its input.
        integer_bias: Whether the bias is rounded to the step of the sum, as some kernels do;
            others add it to the scaled sum as it is.
        dtype: Of the output; by default that of the input.
    """
    weights = layer.integers
    assert weights is not None and layer.scale is not None and layer.zero_point is not None
    total = exact_sum(weights, source.integers.double() - source.zero_point)
    shape = (1, -1) + (1,) * (total.dim() - 2) if weights.stride else (-1,)
    step = (weights.scales * source.scale).view(shape)
    if weights.bias is not None:
        bias = weights.bias.double() / step.flatten()
        total = total + (bias.round() if integer_bias else bias).view(shape)
    scaled = (total * (step / layer.scale)).round() + layer.zero_point
    limits = torch.iinfo(dtype or source.integers.dtype)
    low, high = limits.min, limits.max
    if layer.activation:
        low = max(low, layer.zero_point)
    if layer.activation == "relu6":
        high = min(high, layer.zero_point + round(6 / layer.scale))
    return scaled.clamp(low, high)


def exact_sum(weights: IntegerWeights, centred: Tensor) -> Tensor:
    """Sums of integer products, float64 and exact, of an input less its zero point."""
    factors = weights.centred.double()
    if not weights.stride:
        return F.linear(centred, factors)
    return _CONVOLUTIONS[factors.dim()](
        centred, factors, None, weights.stride, weights.padding, weights.dilation, weights.groups
    )


def leaves_int16(
    weights: IntegerWeights, pairing: Pairing | None = None, highest: Tensor | float = 255.0
) -> bool:
    """Whether two u8×s8 products that a kernel adds can leave 16 bits, as ``vpmaddubsw`` adds them.

    Zero points play no part: they are corrected for afterwards.

    Args:
        weights: Of the layer.
        pairing: Which products the kernel adds. None: not known, so any two neighbours in the
            order (row, column, channel).
        highest: The largest possible input, as u8; or one per input channel.
    """
    if weights.exact:
        return False
    if pairing is not None:
        pairing = layer_pairing(pairing, len(weights.integers), weights.groups)
        if pairing is None:
            return False
    # float32 is exact here: two products stay below 2¹⁷.
    factors = weights.integers.float()
    outputs, channels = factors.shape[:2]
    groups = weights.groups
    values = torch.as_tensor(highest, dtype=torch.float32).expand(channels * groups)
    read = values.view(groups, channels).repeat_interleave(outputs // groups, 0)
    products = factors * read.view(outputs, channels, *(1,) * (factors.dim() - 2))
    if pairing is None:
        flat = products.movedim(1, -1).flatten(1)
        pairs = torch.stack([flat[:, :-1], flat[:, 1:]], -1)
    else:
        pairs = pairs_of(products, pairing)
    if not pairs.numel():
        return False
    most, least = largest_sums(pairs)
    return bool(most.max() > _INT16[1] or least.min() < _INT16[0])


def highest_inputs(layer: Operator, source: QuantizedTensor) -> Tensor:
    """Largest u8 value in each input channel, float64; padding puts in the zero point."""
    values = source.integers.double()
    if layer.integers is not None and not layer.integers.stride:
        return values.flatten(0, -2).amax(0)
    return values.movedim(1, 0).flatten(1).amax(1).clamp(min=float(source.zero_point))
