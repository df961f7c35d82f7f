"""A single layer under ONNX Runtime, on inputs that are all the largest one."""

from __future__ import annotations

import numpy as np

from ptqbench.backends.onnxruntime.ort_session import create_session


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
