"""Let values be rounded before they are flattened, so that what computes them is one operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptqbench.backends.onnx_format.onnx_graph import readers

if TYPE_CHECKING:
    import onnx

_MOVES = ("Flatten", "Reshape")


def round_before_moves(graph: onnx.GraphProto) -> None:
    """Swap operators that only move values with the rounding behind them, in place.

    Runtimes execute an operator in int8 if its output is quantized at once. Rounding each value in
    the same way commutes with moving them.
    """
    outputs = {value.name for value in graph.output}
    for move in [node for node in graph.node if node.op_type in _MOVES]:
        reading = readers(graph)
        quantize = _only(reading, move.output[0], "QuantizeLinear", outputs)
        dequantize = (
            None
            if quantize is None
            else _only(reading, quantize.output[0], "DequantizeLinear", outputs)
        )
        if quantize is None or dequantize is None:
            continue
        source, result = move.input[0], dequantize.output[0]
        quantize.input[0] = source
        dequantize.output[0] = f"{result}_rounded"
        _declare(graph, source, quantize.output[0], dequantize.output[0])
        move.input[0], move.output[0] = dequantize.output[0], result
        graph.node.remove(move)
        graph.node.insert(list(graph.node).index(dequantize) + 1, move)


def _declare(graph: onnx.GraphProto, source: str, integers: str, floats: str) -> None:
    """Give values that are rounded earlier now the shape of what they are rounded from."""
    values = {value.name: value for value in graph.value_info}
    if integers in values:  # of the moved values
        graph.value_info.remove(values[integers])
    if source in values:
        declared = graph.value_info.add()
        declared.CopyFrom(values[source])
        declared.name = floats


def _only(
    reading: dict[str, list[onnx.NodeProto]], value: str, kind: str, outputs: set[str]
) -> onnx.NodeProto | None:
    """The only reader of a value if it is of a kind."""
    nodes = reading.get(value, [])
    if len(nodes) != 1 or value in outputs or nodes[0].op_type != kind:
        return None
    return nodes[0] if nodes[0].input[0] == value else None
