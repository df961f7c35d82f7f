"""Operators that ONNX Runtime executes in float32 in the middle of an int8 graph."""

from __future__ import annotations

from collections import Counter

from ptqbench.backends.graph import Graph, Operator, Role

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


def islands(graph: Graph) -> Counter[str]:
    """Count the operators, by kind, that read what was dequantized and that are not layers."""
    dequantized = {
        operator.value for operator in graph.operators if operator.kernel == "DequantizeLinear"
    }
    return Counter(
        operator.kernel
        for operator in graph.operators
        if dequantized.intersection(operator.inputs) and _is_island(operator)
    )


def _is_island(operator: Operator) -> bool:
    layer = operator.is_int8_layer or operator.is_float_layer
    return not layer and operator.kernel not in _CONVERSIONS and operator.role is not Role.OBSERVER


def slow_layers(graph: Graph) -> str:
    """Name what runs in float32 between int8 layers, as a sentence with a remedy.

    Empty if at most one operator does, which is that in front of the last layer, or behind it.
    """
    counts = islands(graph)
    if counts.total() <= 1:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return (
        f"ONNX Runtime has no int8 kernel for {kinds}: each is executed in float32 between a "
        "dequantization and a quantization. Another backend may have one, or keep float32."
    )
