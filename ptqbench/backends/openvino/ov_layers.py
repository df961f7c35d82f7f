"""Convolutions and linear layers of an IR file, with weights, geometry and ranges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptqbench.backends.graph import IntegerWeights
from ptqbench.backends.openvino.ir_weights import FileWeights
from ptqbench.backends.openvino.ov_constants import constant, only_reader, source
from ptqbench.backends.openvino.ov_ranges import Range, Rounding, rounding, source_range
from ptqbench.backends.openvino.ov_weights import read_weights

_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_TRANSPOSED = ("ConvolutionBackpropData", "GroupConvolutionBackpropData")
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze")
"""Operators that only move values, as behind a linear layer of rows."""
_KINDS = (*_CONVOLUTIONS, *_TRANSPOSED, "MatMul")


@dataclass(frozen=True)
class FileLayer:
    """A layer as the file has it.

    Attributes:
        name: Of its operator.
        path: Module path in the name of its weights; empty if that has none.
        integers: Weights if they are integers.
        weight: Weights as floats, if they are not.
        bias: float32 ``C_out``, or None.
        activation: ``relu`` or ``relu6`` behind it, or empty.
        activation_name: Of that operator.
        value: Its first input in the graph.
        source: What that was rounded to; None if it was not.
        output: How its output is rounded, behind bias and activation; None if it is not.
        uneven: Zeros at the beginning and the end of each dimension besides what both ends share.
        turned: Whether dimensions of its output are swapped before it is rounded.
        bias_name: Of the operator that adds the bias, which a compiled model may name instead.
    """

    name: str
    path: str
    integers: IntegerWeights | None
    weight: Tensor | None
    bias: Tensor | None
    activation: str
    activation_name: str
    value: Any
    source: Range | None
    output: Rounding | None
    uneven: tuple[tuple[int, int], ...] = ()
    turned: bool = False
    bias_name: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What a compiled model may call it."""
        return (self.bias_name, self.name) if self.bias_name else (self.name,)


def read_layers(model: Any) -> list[FileLayer]:
    """Read the layers of a model whose weights are constant, in the order of its graph."""
    nodes = (node for node in model.get_ordered_ops() if node.get_type_name() in _KINDS)
    return [layer for node in nodes if (layer := _layer(node)) is not None]


def is_relu6(node: Any) -> bool:
    """Whether an operator is a ReLU6."""
    if node.get_type_name() != "Clamp":
        return False
    attributes = node.get_attributes()
    return (float(attributes["min"]), float(attributes["max"])) == (0.0, 6.0)


def _layer(node: Any) -> FileLayer | None:
    weights = read_weights(node)
    if weights is None:
        return None
    following = _Following(node, len(weights.values))
    transposed = node.get_type_name() in _TRANSPOSED
    geometry = {} if node.get_type_name() == "MatMul" else _geometry(node, weights, transposed)
    floats = weights.scales is None
    return FileLayer(
        name=node.get_friendly_name(),
        path=weights.name.rpartition(".weight")[0],
        integers=None if floats else _integers(weights, following.bias, geometry),
        weight=_tensor(weights.floats),
        bias=following.bias,
        activation=following.activation,
        activation_name=following.activation_name,
        value=node.input_value(0),
        source=source_range(node),
        output=following.rounding,
        uneven=() if transposed or not geometry else tuple(_uneven(node)),
        turned=following.turned,
        bias_name=following.bias_name,
    )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _integers(
    weights: FileWeights, bias: Tensor | None, geometry: dict[str, Any]
) -> IntegerWeights:
    assert weights.scales is not None and weights.zero_points is not None
    return IntegerWeights(
        integers=torch.from_numpy(np.array(weights.values, np.int8)),
        scales=torch.from_numpy(np.array(weights.scales, np.float64)),
        zero_points=torch.from_numpy(np.array(weights.zero_points, np.int64)),
        per_channel=weights.per_channel,
        bias=bias,
        **geometry,
    )


def _geometry(node: Any, weights: FileWeights, transposed: bool) -> dict[str, Any]:
    """Stride, padding (what both ends share of it), dilation and groups."""
    attributes = node.get_attributes()
    ends = zip(attributes["pads_begin"], attributes["pads_end"], strict=True)
    return {
        "stride": tuple(map(int, attributes["strides"])),
        "padding": tuple(int(min(pair)) for pair in ends),
        "dilation": tuple(map(int, attributes["dilations"])),
        "groups": weights.groups,
        "transposed": transposed,
    }


def _uneven(node: Any) -> Iterator[tuple[int, int]]:
    attributes = node.get_attributes()
    for begin, end in zip(attributes["pads_begin"], attributes["pads_end"], strict=True):
        yield int(begin - min(begin, end)), int(end - min(begin, end))


class _Following:
    """What follows a layer: a bias, an activation and a rounding, as far as they do.

    Args:
        layer: The operator.
        outputs: Number of its output channels, or features.
    """

    def __init__(self, layer: Any, outputs: int) -> None:
        self.bias: Tensor | None = None
        self.activation = self.activation_name = self.bias_name = ""
        self.turned = False
        node = only_reader(layer)
        if node is not None and node.get_type_name() == "Add":
            values = constant(source(node, 1))
            if values is not None and values.size in (1, outputs):
                flat = np.broadcast_to(values.reshape(-1), outputs)
                self.bias = _tensor(flat)
                self.bias_name = node.get_friendly_name()
                node = only_reader(node)
        while node is not None and node.get_type_name() in _MOVES:
            self.turned = self.turned or node.get_type_name() == "Transpose"
            node = only_reader(node)
        kind = "" if node is None else node.get_type_name()
        if kind == "Relu" or (kind == "Clamp" and is_relu6(node)):
            self.activation = "relu" if kind == "Relu" else "relu6"
            self.activation_name = node.get_friendly_name()
            node = only_reader(node)
        self.rounding: Rounding | None = rounding(node)
