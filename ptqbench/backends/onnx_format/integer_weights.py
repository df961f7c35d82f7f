"""Write the integers of a simulated model into its ONNX graph, which then is a QDQ file.

A weight becomes int8 with a scale per output channel, and a bias int32 with the product of the
scales of input and weight as its scale: what integer kernels add it to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ptqbench.backends.onnx_format.onnx_graph import readers
from ptqbench.backends.onnx_format.qdq_graph import MOVES
from ptqbench.quantization.simulation import RoundedWeights

if TYPE_CHECKING:
    import onnx

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_INT32 = 2**31 - 1


def write_integers(model: onnx.ModelProto, weights: Mapping[str, RoundedWeights]) -> None:
    """Store weights and biases of int8 layers as integers, in place.

    Args:
        model: Exported from a simulated module; its initializers have the names of parameters.
        weights: By the name of their parameter.
    """
    graph = model.graph
    initializers = {each.name: each for each in graph.initializer}
    reading = readers(graph)
    scales = _activation_scales(model)
    for name, rounded in weights.items():
        if name not in initializers:
            continue
        for node in reading.get(name, ()):
            if node.op_type in _LAYERS and len(node.input) > 2 and node.input[0] in scales:
                _write_bias(graph, node, initializers, scales[node.input[0]], rounded)
        _dequantized(graph, name, rounded.integers.numpy(), rounded.scales.numpy(), rounded.axis)
        graph.initializer.remove(initializers[name])


def _activation_scales(model: onnx.ModelProto) -> dict[str, float]:
    """The scales of dequantized activations, also of those that were moved since, by value."""
    from onnx import numpy_helper

    values = {each.name: each for each in model.graph.initializer}
    scales: dict[str, float] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[1] in values:
            scales[node.output[0]] = float(numpy_helper.to_array(values[node.input[1]]).reshape(()))
        elif node.op_type in MOVES and node.input[0] in scales:
            scales[node.output[0]] = scales[node.input[0]]
    return scales


def _write_bias(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    initializers: Mapping[str, onnx.TensorProto],
    source: float,
    weights: RoundedWeights,
) -> None:
    """Let a layer read its bias as integers."""
    from onnx import numpy_helper

    bias = initializers.get(node.input[2])
    if bias is None:
        return
    values = numpy_helper.to_array(bias).astype(np.float64)
    steps = weights.scales.numpy().astype(np.float32) * np.float32(source)
    integers = np.clip(np.round(values / steps), -_INT32, _INT32).astype(np.int32)
    name = f"{node.output[0]}_bias"
    steps = np.broadcast_to(steps, integers.shape)
    node.input[2] = _dequantized(graph, name, integers, steps, 0)


def _dequantized(graph: onnx.GraphProto, name: str, integers: Any, scales: Any, axis: int) -> str:
    """Add integers, and a node that makes the value of a name from them."""
    from onnx import helper, numpy_helper

    scalar = scales.size == 1 and integers.ndim > 1
    steps = np.ascontiguousarray(scales.reshape(()) if scalar else scales, np.float32)
    zeros = np.zeros(steps.shape, integers.dtype)
    parts = {"quantized": np.ascontiguousarray(integers), "scale": steps, "zero_point": zeros}
    for part, values in parts.items():
        graph.initializer.append(numpy_helper.from_array(values, f"{name}_{part}"))
    options = {} if scalar else {"axis": axis}
    inputs = [f"{name}_{part}" for part in parts]
    node = helper.make_node("DequantizeLinear", inputs, [name], f"{name}_dequantize", **options)
    graph.node.insert(0, node)
    return name
