"""Convolutions and linear layers of a graph that XNNPACK executes, in torch's order of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptqbench.backends.executorch.xnnpack_graph import CONVOLUTIONS, XnnGraph, XnnNode, XnnValue
from ptqbench.backends.graph import IntegerWeights

_INTEGERS = ("qint8", "qcint8")


@dataclass(frozen=True)
class XnnLayer:
    """A layer.

    Attributes:
        integers: Weights if it is executed in int8.
        weight: Weights as floats ``O×I×…``, if it is not and they are constant.
        bias: float32 ``O``, or None.
        activation: ``relu`` or ``relu6`` that is part of it, or empty.
        uneven: Zeros at the beginning and the end of rows and columns besides what both share.
        is_recordable: Whether integers describe all that it does.
        obstacle: Why it is not executed in int8 although its weights are integers.
    """

    integers: IntegerWeights | None
    weight: Tensor | None
    bias: Tensor | None
    activation: str
    uneven: tuple[tuple[int, int], ...] = ()
    is_recordable: bool = False
    obstacle: str = ""


def read_layer(graph: XnnGraph, node: XnnNode) -> XnnLayer:
    """Read one layer of a graph."""
    source, weights = (graph.values[number] for number in node.inputs[:2])
    bias = _bias(graph, node, source, weights)
    activation = clamp(node)
    if weights.constant is None:
        return XnnLayer(None, None, bias, activation)
    values, scales = _arranged(node, weights)
    is_int8 = (
        source.datatype == graph.values[node.output].datatype == "qint8"
        and weights.datatype in _INTEGERS
    )
    if not is_int8:
        obstacle = ""
        if weights.datatype in _INTEGERS:
            obstacle = "the range of its input is computed anew for every image"
            stretched = (-1,) + (1,) * (values.dim() - 1)
            values = values.float() * scales.float().view(stretched if len(scales) > 1 else ())
        return XnnLayer(None, values.float(), bias, activation, obstacle=obstacle)
    steps = scales * float(source.scales[0])
    integers = IntegerWeights(
        integers=values,
        scales=scales,
        zero_points=torch.zeros(len(scales), dtype=torch.int64),
        per_channel=len(scales) > 1 or len(values) == 1,
        bias=bias,
        bias_steps=None if bias is None else steps.expand(len(bias)),
        exact=True,
        **_geometry(node),
    )
    free = node.limits == (-np.inf, np.inf)
    plain = node.kind != "ConvTranspose2d" and (free or bool(activation))
    return XnnLayer(integers, None, bias, activation, _uneven(node), plain)


def clamp(node: XnnNode) -> str:
    """The activation that an operator's limits are: relu, relu6 or none."""
    return {(0.0, np.inf): "relu", (0.0, 6.0): "relu6"}.get(node.limits, "")


def _arranged(node: XnnNode, weights: XnnValue) -> tuple[Tensor, Tensor]:
    """Weights as torch has them, and their scales as float64."""
    assert weights.constant is not None
    values = torch.from_numpy(np.array(weights.constant))
    if node.kind == "DepthwiseConv2d":  # 1×H×W×O
        values = values.permute(3, 0, 1, 2)
    elif node.kind == "Conv2d":  # O×H×W×I
        values = values.permute(0, 3, 1, 2)
    elif node.kind == "ConvTranspose2d":  # the same, of each group
        outputs, height, width, inputs = values.shape
        groups = (node.geometry or {}).get("groups", 1) or 1
        parts = values.reshape(groups, outputs // groups, height, width, inputs)
        values = parts.permute(0, 4, 1, 2, 3).reshape(-1, outputs // groups, height, width)
    return values.contiguous(), torch.from_numpy(np.array(weights.scales, np.float64))


def _bias(graph: XnnGraph, node: XnnNode, source: XnnValue, weights: XnnValue) -> Tensor | None:
    if len(node.inputs) < 3:
        return None
    value = graph.values[node.inputs[2]]
    if value.constant is None:
        return None
    bias = np.array(value.constant, np.float64).reshape(-1)
    if value.datatype in ("qint32", "qcint32", "int32") and source.scales.size:
        bias = bias * np.array(weights.scales, np.float64) * float(source.scales[0])
    return torch.from_numpy(bias).float()


def _geometry(node: XnnNode) -> dict[str, Any]:
    """Stride, padding (what both ends share of it), dilation and groups."""
    fields = node.geometry
    if node.kind not in CONVOLUTIONS or fields is None:
        return {}
    return {
        "stride": (fields["stride_height"], fields["stride_width"]),
        "padding": (min(fields["top"], fields["bottom"]), min(fields["left"], fields["right"])),
        "dilation": (fields["dilation_height"], fields["dilation_width"]),
        "groups": fields["groups"],
        "transposed": node.kind == "ConvTranspose2d",
    }


def _uneven(node: XnnNode) -> tuple[tuple[int, int], ...]:
    fields = node.geometry
    if fields is None:
        return ()
    pairs = ((fields["top"], fields["bottom"]), (fields["left"], fields["right"]))
    return tuple((begin - min(begin, end), end - min(begin, end)) for begin, end in pairs)
