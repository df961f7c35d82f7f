"""What ExecuTorch executes slowly: portable operators, and float32 in the middle of int8."""

from __future__ import annotations

from collections import Counter

from ptqbench.backends.executorch.et_graph import PORTABLE
from ptqbench.backends.graph import Graph, Role


def portable(graph: Graph) -> Counter[str]:
    """Count the operators, by kind, that XNNPACK does not execute."""
    return Counter(each.kind for each in graph.operators if each.kernel == PORTABLE)


def islands(graph: Graph) -> Counter[str]:
    """Count the operators, by kind, that XNNPACK executes in float32 and that are not layers."""
    return Counter(
        each.kind
        for each in graph.operators
        if each.kernel != PORTABLE
        and each.precision == "float32"
        and each.role not in (Role.CONVERSION, Role.FLOAT_LAYER)
    )


def slow_layers(graph: Graph) -> str:
    """Name what is slow, as sentences with a remedy each; empty if nothing is."""
    sentences = []
    if counts := portable(graph):
        sentences.append(
            f"XNNPACK does not execute {_named(counts)}: ExecuTorch's portable operators do, in "
            "one thread and without vector instructions. Write the model without them, or use "
            "another backend."
        )
    counts = islands(graph)
    if graph.int8_layers and counts.total() > 1:
        sentences.append(
            f"XNNPACK executes {_named(counts)} in float32 between int8 layers, each with "
            "conversions on either side. Another backend may have int8 kernels for them."
        )
    return " ".join(sentences)


def _named(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
