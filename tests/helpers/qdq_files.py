"""QDQ files with planted findings, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed (ptqbench[onnx])")

CHANNELS = 8


class Qdq:
    """Builds a QDQ file of three layers: 3×3 convolution, depthwise convolution, head."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.nodes: list[Any] = []
        self.values: dict[str, np.ndarray] = {}

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def store(self, name: str, value: object) -> str:
        self.values[name] = np.asarray(value)
        return name

    def pair(self, name: str, scale: float = 0.02) -> str:
        """Quantize and dequantize a value."""
        if self.options.get("uncalibrated"):
            scale = 1.0
        zero = np.int8(3) if self.options.get("signed") else np.uint8(0 if scale == 1 else 3)
        rest = [
            self.store(f"{name}_s", np.float32(self.options.get("scale", scale))),
            self.store(f"{name}_z", zero),
        ]
        self.add("QuantizeLinear", [name, *rest], f"{name}_q")
        return self.add("DequantizeLinear", [f"{name}_q", *rest], f"{name}_dq")

    def weight(self, name: str, *shape: int) -> str:
        """Integers that are dequantized."""
        limit = self.options.get("limit", 63)
        integers = np.full(shape, limit, np.int8)
        channels = 1 if self.options.get("per_tensor") else shape[0]
        zero = self.options.get("weight_zero", 0)
        scales = np.full(channels, 0.01, np.float32)
        parts = [
            self.store(f"{name}.weight_quantized", integers),
            self.store(f"{name}_ws", scales if channels > 1 else scales[0]),
            self.store(f"{name}_wz", np.full(channels, zero, np.int8).reshape(scales.shape)),
        ]
        if channels == 1:
            self.values[parts[2]] = np.int8(zero)
        options = {"axis": 0} if channels > 1 else {}
        return self.add("DequantizeLinear", parts, f"{name}.weight", **options)

    def write(self, path: Path) -> Path:
        x = self.pair("images")
        x = self.add("Conv", [x, self.weight("stem", CHANNELS, 3, 3, 3)], "stem")
        x = self.pair(self.add("Relu", [x], "relu"))
        weight = self.weight("depthwise", CHANNELS, 1, 3, 3)
        x = self.pair(self.add("Conv", [x, weight], "depthwise", group=CHANNELS))
        if self.options.get("hard_swish"):
            x = self.pair(self.add("HardSwish", [x], "swish"))
        x = self.pair(self.add("GlobalAveragePool", [x], "pool"))
        x = self.add("Flatten", [x], "flat")
        if self.options.get("float_head"):
            head = self.store("fc.weight", np.ones((5, CHANNELS), np.float32))
        else:
            head = self.weight("fc", 5, CHANNELS)
        x = self.pair(self.add("Gemm", [x, head], "fc", transB=1))
        self.add("Softmax" if self.options.get("softmax") else "Identity", [x], "logits")
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes,
            "net",
            [info("images", 1, ["batch", 3, 10, 10])],
            [info("logits", 1, ["batch", 5])],
            [onnx.numpy_helper.from_array(value, name) for name, value in self.values.items()],
        )
        opset = onnx.helper.make_opsetid("", 20)
        onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
        return path
