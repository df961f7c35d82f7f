"""Operators that Inductor's passes leave in float32 in the middle of an int8 graph."""

from __future__ import annotations

from collections import Counter

from ptqbench.backends.graph import Graph, Operator, Role

_QUANTIZE = "quantized_decomposed::quantize_per_tensor"
_DEQUANTIZE = "quantized_decomposed::dequantize_per_tensor"


def islands(graph: Graph) -> Counter[str]:
    """Count the operators, by kind, in front of a quantization or behind a dequantization.

    Layers are none, and neither are conversions.
    """
    dequantized = {each.value for each in graph.operators if each.kind == _DEQUANTIZE}
    quantized = {name for each in graph.operators if each.kind == _QUANTIZE for name in each.inputs}
    return Counter(
        each.kind.partition("::")[2]
        for each in graph.operators
        if _is_float_operator(each)
        and (each.value in quantized or dequantized.intersection(each.inputs))
    )


def _is_float_operator(operator: Operator) -> bool:
    layer = operator.is_int8_layer or operator.is_float_layer
    return not layer and operator.role is not Role.CONVERSION and operator.precision != "int8"


def slow_layers(graph: Graph) -> str:
    """Name what runs in float32 between int8 layers, as a sentence with a remedy.

    Empty if at most one operator does, which is that in front of the last layer, or behind it.
    """
    counts = islands(graph)
    if not graph.int8_layers or counts.total() <= 1:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return (
        f"Inductor's passes leave {kinds} in float32, between conversions of several operators "
        "each, which only its compiler fuses. Another backend may have int8 kernels for them, or "
        "keep float32."
    )
