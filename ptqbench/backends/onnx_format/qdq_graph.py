"""What a QDQ file says of its int8 layers before a runtime fuses anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ptqbench.backends.onnx_format.onnx_graph import constants, readers

if TYPE_CHECKING:
    import onnx

MOVES = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity")
"""Operators that only move values: a runtime takes them out from between two that it fuses."""
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def fused_activations(model: onnx.ModelProto) -> dict[str, str]:
    """Return the activation between each layer and the quantization of its output.

    Args:
        model: Of the file, as it is written.

    Returns:
        ``relu`` or ``relu6`` by the name of the layer's integer weights; layers without one are
        left out.
    """
    graph, values = model.graph, constants(model)
    reading = readers(graph)
    producers = {name: node for node in graph.node for name in node.output}
    activations = {}
    for node in graph.node:
        if node.op_type not in _LAYERS or len(node.input) < 2:
            continue
        weights = _integer_source(node.input[1], producers, values)
        after = _only(reading, _moved(node.output[0], reading))
        if weights is None or after is None:
            continue
        kind = "relu" if after.op_type == "Relu" else ""
        if after.op_type == "Clip" and is_relu6(after, values):
            kind = "relu6"
        quantization = _only(reading, _moved(after.output[0], reading))
        if kind and quantization is not None and quantization.op_type == "QuantizeLinear":
            activations[weights] = kind
    return activations


def is_relu6(node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> bool:
    """Whether an operator ``Clip`` is a ReLU6."""
    bounds = [
        values[name].reshape(()).item() if name in values else None for name in node.input[1:3]
    ]
    return bounds == [0, 6]


def _integer_source(
    name: str, producers: Mapping[str, onnx.NodeProto], values: Mapping[str, np.ndarray]
) -> str | None:
    """The name of the integers that a value is dequantized from; None if it is not."""
    node = producers.get(name)
    while node is not None and node.op_type in MOVES:
        node = producers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in values:
        return None
    return str(node.input[0])


def _moved(name: str, reading: Mapping[str, list[onnx.NodeProto]]) -> str:
    """The value that a value becomes by being moved alone."""
    node = _only(reading, name)
    while node is not None and node.op_type in MOVES:
        name = node.output[0]
        node = _only(reading, name)
    return name


def _only(reading: Mapping[str, list[onnx.NodeProto]], name: str) -> onnx.NodeProto | None:
    """The only node that reads a value."""
    nodes = reading.get(name, [])
    return nodes[0] if len(nodes) == 1 else None
