"""Why ONNX Runtime executes a layer in float32 although its weights are quantized in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ptqbench.backends.onnx_format.onnx_graph import readers

if TYPE_CHECKING:
    import onnx

Test: TypeAlias = "Callable[[np.ndarray, np.ndarray], bool]"
"""Of the scale and the zero point of a conversion."""
SIGNED = (
    "signed activations (s8) that ONNX Runtime cannot turn into u8, which its int8 kernels read on "
    "x86: quantize with activation_type=QuantType.QUInt8"
)
CHANNELS = (
    "activations with a scale for each channel, for which ONNX Runtime has no int8 kernel: "
    "quantize activations with one scale"
)
RANGELESS = (
    "ranges that are determined while running (dynamic quantization), which takes time: calibrate, "
    "and quantize with quantize_static"
)
_DEQUANTIZATION, _QUANTIZATION = "DequantizeLinear", "QuantizeLinear"


class FloatReasons:
    """Finds out why layers are executed in float32.

    Args:
        graph: That ONNX Runtime executes.
        values: Its constants.
    """

    def __init__(self, graph: onnx.GraphProto, values: Mapping[str, np.ndarray]) -> None:
        self._values = values
        self._producers = {name: node for node in graph.node for name in node.output}
        self._readers = readers(graph)

    def weights(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Integers, scales and zero points that a value is dequantized from, if it is constant."""
        node = self._producers.get(name)
        if node is None or node.op_type != _DEQUANTIZATION or node.input[0] not in self._values:
            return None
        integers, scales = self._values[node.input[0]], self._values.get(node.input[1])
        zeros = self._values.get(node.input[2]) if len(node.input) > 2 else None
        if scales is None:
            return None
        return integers, scales, np.zeros(1, np.int64) if zeros is None else zeros

    def of(self, node: onnx.NodeProto) -> str:
        """Return the reason for a layer; empty if its weights are not quantized."""
        if len(node.input) < 2 or self.weights(node.input[1]) is None:
            return ""
        source = self._producers.get(node.input[0])
        if source is None or source.op_type != _DEQUANTIZATION:
            kind = "the image" if source is None else source.op_type
            return f"an input that is not quantized, from {kind}: quantize its output as well"
        after = self._readers.get(node.output[0], [])
        if not after or any(each.op_type != _QUANTIZATION for each in after):
            return "an output that is not quantized: quantize it as well"
        conversions = (source, *after)
        if self._any(conversions, lambda scale, _: scale.size > 1):
            return CHANNELS
        if self._any(conversions, lambda _, zero: zero.dtype == np.int8):
            return SIGNED
        return "a combination of types that ONNX Runtime has no int8 kernel for"

    def _any(self, nodes: Iterable[onnx.NodeProto], test: Test) -> bool:
        none = np.zeros(1, np.uint8)
        return any(
            test(
                self._values.get(node.input[1], none),
                self._values.get(node.input[2], none) if len(node.input) > 2 else none,
            )
            for node in nodes
        )
