"""Which int8 layers an engine of torch runs many times slower than others of their size.

fbgemm, and x86 which calls it for them, compute a depthwise convolution in vectors of eight
channels, and only of the usual shapes. Measured on AVX2 (64 channels, 28×28, one thread): 3×3 with
padding 1 in 0.2 ms; with padding 0, with dilation 2, or with 60 channels in 14 to 19 ms. oneDNN
takes 0.2 ms for each of these.
"""

from __future__ import annotations

from collections import Counter

from ptqbench.backends.graph import Graph, IntegerWeights

_ENGINES = ("fbgemm", "x86")
_KERNELS = (3, 5, 7)
_STRIDES = (1, 2)
_MULTIPLIERS = (1, 2)
_VECTOR = 8
"""Channels that the kernel computes together."""


def slow_layers(graph: Graph, engine: str) -> str:
    """Name the depthwise convolutions that an engine has no fast kernel for.

    Args:
        graph: Of an int8 file.
        engine: torch quantized engine.

    Returns:
        A sentence with their number, the reasons and a remedy; empty if there are none.
    """
    if engine not in _ENGINES:
        return ""
    weights = [layer.integers for layer in graph.int8_layers if layer.integers is not None]
    counts = Counter(reason for each in weights if (reason := _reason(each)))
    if not counts:
        return ""
    number = counts.total()
    reasons = "; ".join(f"{count} with {reason}" for reason, count in counts.most_common())
    layers = "depthwise convolution has" if number == 1 else "depthwise convolutions have"
    return f"{number} {layers} no fast kernel in {engine} ({reasons}): use onednn."


def _reason(weights: IntegerWeights) -> str:
    """What keeps a two-dimensional depthwise convolution from the fast kernel, if anything."""
    channels, outputs, kernel = weights.groups, len(weights.integers), weights.integers.shape[2:]
    depthwise = channels > 1 and weights.integers.shape[1] == 1 and not weights.transposed
    if not depthwise or len(kernel) != 2:
        return ""
    if any(2 * pad != size - 1 for pad, size in zip(weights.padding, kernel, strict=True)):
        return "padding that is not half the kernel"
    if any(step != 1 for step in weights.dilation):
        return "dilation"
    if channels % _VECTOR:
        return f"channels that are not a multiple of {_VECTOR}"
    usual = (
        len(set(kernel)) == 1
        and kernel[0] in _KERNELS
        and all(step in _STRIDES for step in weights.stride)
        and outputs // channels in _MULTIPLIERS
    )
    return "" if usual else "an unusual kernel, stride or number of outputs"
