"""Operators that OpenVINO executes in float32 in the middle of an int8 graph."""

from __future__ import annotations

from collections import Counter

from ptqbench.backends.graph import Graph, Operator
from ptqbench.backends.openvino.ov_graph import CONVERSIONS

_PLAIN = (*CONVERSIONS, "Input", "Output", "Reshape")


def islands(graph: Graph) -> Counter[str]:
    """Count the operators, by kind, that are executed in float32 and are not layers."""
    return Counter(operator.kind for operator in graph.operators if _is_island(operator))


def _is_island(operator: Operator) -> bool:
    layer = operator.is_int8_layer or operator.is_float_layer
    return not layer and operator.kind not in _PLAIN and operator.precision.startswith("f")


def slow_layers(graph: Graph) -> str:
    """Name what runs in float32 between int8 layers, as a sentence with a remedy.

    Empty if at most one operator does, which is that in front of the last layer, or behind it.
    """
    counts = islands(graph)
    if not graph.int8_layers or counts.total() <= 1:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return (
        f"OpenVINO executes {kinds} in float32 between int8 layers, each with conversions on "
        "either side. Another backend may have int8 kernels for them, or keep float32."
    )
