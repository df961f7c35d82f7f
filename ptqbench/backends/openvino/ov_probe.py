"""A single layer under OpenVINO, on inputs that are all the same."""

from __future__ import annotations

import numpy as np

from ptqbench.backends.openvino.ov_import import import_openvino
from ptqbench.backends.openvino.ov_session import Request, compile_model


def layer_outputs(
    weights: np.ndarray, groups: int, scale: float, zero_point: int, value: int = 255
) -> np.ndarray:
    """Run one layer on inputs that are all the same.

    Args:
        weights: int8, ``O×I×K×K`` of a convolution or ``O×I`` of a linear layer.
        groups: Of the convolution.
        scale: Of the output, in units of the integer sum.
        zero_point: Of the output.
        value: The inputs, as u8.

    Returns:
        One output of each channel, as an integer ``O``.
    """
    import_openvino()
    from openvino import Model, opset13

    side = tuple(size + 3 for size in weights.shape[2:])
    images = opset13.parameter([1, weights.shape[1] * groups, *side], np.float32, name="images")
    source = _rounded(images, 1.0, 0)
    stretched = (-1,) + (1,) * (weights.ndim - 1)
    scales = opset13.constant(np.ones(len(weights), np.float32).reshape(stretched))
    factors = opset13.multiply(opset13.convert(opset13.constant(weights), np.float32), scales)
    zeros, ones = [0] * len(side), [1] * len(side)
    if not side:
        layer = opset13.matmul(source, factors, False, True)
    elif groups == 1:
        layer = opset13.convolution(source, factors, ones, zeros, zeros, ones)
    else:
        shape = np.array([groups, len(weights) // groups, *weights.shape[1:]], np.int64)
        grouped = opset13.reshape(factors, opset13.constant(shape), False)
        layer = opset13.group_convolution(source, grouped, ones, zeros, zeros, ones)
    output = _rounded(layer, scale, zero_point)
    request = Request(compile_model(Model([opset13.result(output)], [images], "layer"), 1))
    pixels = np.full((1, weights.shape[1] * groups, *side), value, np.float32)
    first = request.run(pixels)[0].reshape(len(weights), -1)[:, 0]
    outputs: np.ndarray = np.round(first / np.float32(scale)).astype(np.int64) + zero_point
    return outputs


def _rounded(value: object, scale: float, zero_point: int) -> object:
    """Quantize to u8 and back, as QDQ models are read."""
    from openvino import opset13

    def number(value: float) -> object:
        return opset13.constant(np.float32(value))

    low, high = (number((end - zero_point) * scale) for end in (0, 255))
    integers = opset13.fake_quantize(value, low, high, number(0), number(255), 256)
    floats = opset13.convert(opset13.convert(integers, np.uint8), np.float32)
    return opset13.multiply(opset13.subtract(floats, number(zero_point)), number(scale))
