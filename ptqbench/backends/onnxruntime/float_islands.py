"""What ONNX Runtime executes slowly: operators in float32 between int8 layers, and s8 by s8."""

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


def slow_layers(graph: Graph, instructions: str) -> str:
    """Name what is slow, as sentences with a remedy each; empty if nothing is.

    Args:
        graph: What is executed.
        instructions: The instruction set that executes it.
    """
    signed = [layer for layer in graph.int8_layers if layer.lowest < 0]
    sentences = []
    if signed and instructions != "neon":
        sentences.append(
            f"{len(signed)} of {len(graph.int8_layers)} int8 layers multiply s8 by s8, for which "
            "ONNX Runtime has slow kernels on x86: quantize activations as u8 "
            "(activation_type=QuantType.QUInt8)."
        )
    if sentence := _float_operators(graph):
        sentences.append(sentence)
    return " ".join(sentences)


def _float_operators(graph: Graph) -> str:
    """Name what runs in float32 between int8 layers.

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
