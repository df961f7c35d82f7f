"""IR files with planted findings, of the operators that OpenVINO's quantizer writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ptqbench.backends.openvino.ov_import import import_openvino

CHANNELS = 8


class Ir:
    """Builds a file of three layers: 3×3 convolution, depthwise convolution, head.

    Args:
        options: What is planted.
    """

    def __init__(self, **options: Any) -> None:
        import_openvino()
        from openvino import opset13

        self.ops: Any = opset13
        self.options = options

    def constant(self, value: object, name: str = "") -> Any:
        node = self.ops.constant(np.asarray(value))
        if name:
            node.set_friendly_name(name)
        return node

    def rounded(self, value: Any, name: str, low: float = -0.5, high: float = 4.6) -> Any:
        """A ``FakeQuantize`` of an activation."""
        if self.options.get("uncalibrated"):
            low, high = 0.0, 255.0
        if self.options.get("signed"):
            low, high = -128 / 127, 1.0
        low, high = self.options.get("ends", (low, high))
        shape = (1, CHANNELS, 1, 1) if self.options.get("per_channel") == name else ()
        ends = [self.constant(np.full(shape, end, np.float32)) for end in (low, high)]
        node = self.ops.fake_quantize(value, *ends, *ends, 256)
        node.set_friendly_name(name)
        return node

    def weight(self, name: str, *shape: int) -> Any:
        """Integers that are dequantized, or floats that a ``FakeQuantize`` rounds."""
        limit = self.options.get("limit", 63)
        spread = (*((1,) * len(shape[1:])),)
        count = 1 if self.options.get("per_tensor") else shape[0]
        if self.options.get("float_layer") == name:
            kind = self.options.get("float_type", np.float32)
            values = self.constant(np.full(shape, 0.5, kind), f"{name}.weight")
            return values if kind is np.float32 else self.ops.convert(values, np.float32)
        if self.options.get("rounded_weights"):
            values = self.constant(np.full(shape, limit * 0.01, np.float32), f"{name}.weight")
            ends = [self.constant(np.full((count, *spread), e, np.float32)) for e in (-1.27, 1.27)]
            return self.ops.fake_quantize(values, *ends, *ends, 255)
        unsigned = self.options.get("unsigned")
        values = (
            np.full(shape, limit + 128, np.uint8) if unsigned else np.full(shape, limit, np.int8)
        )
        integers = self.constant(values, f"{name}.weight")
        floats = self.ops.convert(integers, np.float32)
        zero = 128 if unsigned else 5 * (self.options.get("asymmetric") == name)
        if zero:
            floats = self.ops.subtract(floats, self.constant(np.float32(zero)))
        scale = self.options.get("weight_scale", 0.01)
        scales = self.constant(np.full((count, *spread), scale, np.float32))
        return self.ops.multiply(floats, scales)

    def middle(self, value: Any) -> Any:
        """What lies between two layers: nothing, or an operator that is planted."""
        make: Callable[[Any, Any], Any] | None = self.options.get("middle")
        if make is None:
            return value
        node = make(self.ops, value)
        node.set_friendly_name("middle")
        return node if self.options.get("bare") else self.rounded(node, "middle_fq")

    def model(self) -> Any:
        """The model, of which the number and the size of images are open."""
        from openvino import Model

        o, one, none = self.ops, [1, 1], [0, 0]
        images = o.parameter([-1, 3, -1, -1], np.float32, name="images")
        x = images if self.options.get("bare_image") else self.rounded(images, "images_fq")
        x = o.convolution(x, self.weight("stem", CHANNELS, 3, 3, 3), one, none, none, one)
        x.set_friendly_name("stem/conv")
        x = self.rounded(o.relu(x), "stem_fq")
        x = self.middle(x)
        weight = self.weight("depthwise", CHANNELS, 1, 3, 3)
        shape = self.constant(np.array([CHANNELS, 1, 1, 3, 3]))
        x = o.group_convolution(x, o.reshape(weight, shape, False), one, none, none, one)
        x = self.rounded(x, "depthwise_fq")
        x = o.reduce_mean(x, self.constant(np.array([2, 3])), False)
        x = self.rounded(x, "pool_fq")
        x = o.matmul(x, self.weight("fc", 5, CHANNELS), False, True)
        x = o.add(x, self.constant(np.zeros((1, 5), np.float32)))
        x = o.softmax(x, 1) if self.options.get("softmax") else x
        return Model([o.result(x)], [images], "net")

    def write(self, path: Path) -> Path:
        model = self.model()
        import_openvino().save_model(model, str(path), compress_to_fp16=False)
        return path
