"""Does ONNX Runtime saturate on this CPU: layers with worst-case integers."""

from __future__ import annotations

import functools

import numpy as np

from ptqbench.backends.onnxruntime.ort_session import create_session

_SIZE = 16
_STEPS = 120
"""Output of the largest true sum, in steps above the zero point."""
_ZERO = 128


@functools.cache
def probe() -> dict[str, float]:
    """Share of its true value that the worst output of each kind of layer comes out at.

    All inputs are 255, all weights of an output channel 127 or −127: nothing is larger.
    1 is exact; 0.5 is what sums in 16 bits give.

    Returns:
        Shares of ``convolution``, ``depthwise convolution`` and ``linear``.
    """
    return {
        "convolution": _share((_SIZE, _SIZE, 3, 3), 1),
        "depthwise convolution": _share((_SIZE, 1, 3, 3), _SIZE),
        "linear": _share((_SIZE, 4 * _SIZE), 1),
    }


def _share(shape: tuple[int, ...], groups: int) -> float:
    """Smallest share of the true value, of all output channels; 1 within a rounding step."""
    weights = np.full(shape, 127, np.int8)
    weights[1::2] = -127
    largest = 255 * 127 * int(np.prod(shape[1:]))
    outputs = layer_outputs(weights, groups, largest / _STEPS, _ZERO)
    true = np.where(np.arange(shape[0]) % 2 == 0, _STEPS, -_STEPS)
    actual = outputs - _ZERO
    share = np.where(np.abs(actual - true) <= 1, 1.0, actual / true)
    return float(share.min())


def layer_outputs(weights: np.ndarray, groups: int, scale: float, zero_point: int) -> np.ndarray:
    """Run one layer on inputs that are all 255.

    Args:
        weights: int8, ``O×I×K×K`` of a convolution or ``O×I`` of a linear layer.
        groups: Of the convolution.
        scale: Of the output, in units of the integer sum.
        zero_point: Of the output.

    Returns:
        One output of each channel, as an integer ``O``.
    """
    from onnx import TensorProto, helper, numpy_helper

    linear = weights.ndim == 2
    channels = weights.shape[1] * groups
    arrays = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "w": weights,
        "w_scales": np.ones(len(weights), np.float32),
        "w_zeros": np.zeros(len(weights), np.int8),
        "scale": np.float32(scale),
        "zero_point": np.uint8(zero_point),
    }
    layer = (
        helper.make_node("Gemm", ["x", "wf"], ["y"], transB=1)
        if linear
        else helper.make_node("Conv", ["x", "wf"], ["y"], group=groups)
    )
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "one", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "w_scales", "w_zeros"], ["wf"], axis=0),
        layer,
        helper.make_node("QuantizeLinear", ["y", "scale", "zero_point"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "scale", "zero_point"], ["logits"]),
    ]
    side = () if linear else tuple(size + 3 for size in weights.shape[2:])
    rank = [None] * len(side)
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, channels, *side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(weights), *rank])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = create_session(model.SerializeToString(), 1)
    (logits,) = session.run(None, {"images": np.full((1, channels, *side), 255, np.float32)})
    first = logits.reshape(len(weights), -1)[:, 0]
    outputs: np.ndarray = np.round(first / np.float32(scale)).astype(np.int64) + zero_point
    return outputs
