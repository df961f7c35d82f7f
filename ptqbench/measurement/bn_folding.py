"""Are the int8 weights of a file those of the float model, with its BatchNorms folded in?

A file without a record of its build still holds the weights that fusion produced: each must
be the folded float weight, rounded to the nearest step, and each bias the folded bias. After
fusing in training mode, with other statistics or another model's weights, they are not.
They are compared with what the backend folds in the float32 artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptqbench.backends.graph import Graph, IntegerWeights, Operator
from ptqbench.measurement.layer_matching import Match, match_layers

STEPS = 0.51
"""Rounding to the nearest step leaves half a step, float32 arithmetic a little more."""
BIAS = 1e-3
"""Largest difference of a bias, as a share of the largest of its layer."""
_USED = 63
"""Integers that far from zero are the limits of 7 or 8 bits."""


@dataclass(frozen=True)
class Folding:
    """How the weights of int8 layers compare with the folded float weights.

    Attributes:
        layers: How many layers were compared.
        off: Layers whose weights are not the folded float weights, with by how much.
    """

    layers: int
    off: tuple[str, ...]


def measure_folding(graph: Graph, folded: Graph, names: Sequence[Match]) -> Folding:
    """Compare the weights of int8 layers with the folded float weights.

    Args:
        graph: Of the int8 file.
        folded: Of the frozen float32 model, BatchNorms folded into the layers before them.
        names: Matches of the layers of ``graph`` with the float model, in their order.
    """
    off = []
    compared = 0
    for match, named in zip(match_layers(graph, folded), names, strict=True):
        integers, origin = match.layer.integers, match.origin
        if integers is None or origin is None or origin.weight is None:
            continue
        after = folded.only_reader(origin)
        if after is not None and after.is_batch_norm:
            continue
        compared += 1
        if problem := _difference(integers, origin):
            off.append(f"{named.name} ({problem})")
    return Folding(compared, tuple(off))


def _difference(integers: IntegerWeights, origin: Operator) -> str:
    assert origin.weight is not None
    steps = float(steps_off(integers, origin.weight).max())
    if not steps <= STEPS:
        return f"weights off by {steps:.1f} steps"
    expected, actual = (
        torch.zeros(1) if bias is None else bias.double() for bias in (origin.bias, integers.bias)
    )
    scale = float(torch.cat([expected, actual]).abs().max())
    error = (expected - actual).abs()
    if integers.bias_steps is not None:  # rounded to a multiple of that
        error = (error - STEPS * integers.bias_steps).clamp(min=0)
    share = float(error.max()) / scale if scale else 0.0
    return "" if share <= BIAS else f"bias off by {share:.1%} of the largest"


def steps_off(weights: IntegerWeights, weight: Tensor) -> Tensor:
    """How many quantization steps each int8 weight is from a float weight.

    Weights beyond the smallest and largest integer of a channel that uses its range are
    clipped, which does not count: observers may choose ranges that clip.

    Args:
        weights: Of an int8 layer.
        weight: Float, of the same shape.

    Returns:
        Steps, float64, of the same shape.
    """
    shape = (-1,) + (1,) * (weights.integers.dim() - 1)
    exact = weight.double() / weights.scales.view(shape) + weights.zero_points.view(shape)
    integers = weights.integers.double()
    low, high = integers.flatten(1).amin(1), integers.flatten(1).amax(1)
    low = torch.where(low <= -_USED, low - 0.5, -torch.inf).view(shape)
    high = torch.where(high >= _USED, high + 0.5, torch.inf).view(shape)
    return (integers - exact.clamp(low, high)).abs()
