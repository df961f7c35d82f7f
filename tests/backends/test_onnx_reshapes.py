"""Rounding that is moved in front of a reshape: the same values, and images of any number."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from ptqbench.backends.onnx_format.moves import round_before_moves
from ptqbench.backends.onnx_format.onnx_graph import opened
from ptqbench.backends.onnx_format.open_reshapes import open_reshapes

onnx = pytest.importorskip("onnx", reason="onnx is not installed (ptqbench[onnx])")


def model() -> object:
    """Pools a map of two images, flattens and rounds it, as an export at a fixed size leaves it."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pool"]),
        helper.make_node("Reshape", ["pool", "shape"], ["flat"], allowzero=1),
        helper.make_node("QuantizeLinear", ["flat", "scale", "zero"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["rounded"]),
        helper.make_node("Gemm", ["rounded", "weight"], ["logits"]),
    ]
    info = helper.make_tensor_value_info
    values = {
        "shape": np.array([2, 3]),
        "scale": np.float32(0.125),
        "zero": np.uint8(100),
        "weight": np.arange(15, dtype=np.float32).reshape(3, 5),
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [info("images", kinds.FLOAT, [2, 3, 4, 4])],
        [info("logits", kinds.FLOAT, [2, 5])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
        value_info=[
            info("pool", kinds.FLOAT, [2, 3, 1, 1]),
            info("flat", kinds.FLOAT, [2, 3]),
            info("integers", kinds.UINT8, [2, 3]),
            info("rounded", kinds.FLOAT, [2, 3]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(model: object, images: np.ndarray) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, {"images": images})[0]


def test_a_model_whose_rounding_was_moved_takes_any_number_of_images() -> None:
    images = np.random.default_rng(0).standard_normal((5, 3, 6, 6)).astype(np.float32)
    before, after = model(), model()
    round_before_moves(after.graph)
    kinds = [node.op_type for node in after.graph.node]
    assert kinds.index("QuantizeLinear") < kinds.index("Reshape")
    onnx.checker.check_model(after, full_check=True)  # what is declared is what is inferred
    np.testing.assert_array_equal(run(before, images[:2]), run(after, images[:2]))
    logits = run(opened(copy.deepcopy(after), sizes=True), images)
    np.testing.assert_array_equal(logits[:2], run(before, images[:2]))
    assert logits.shape == (5, 5)


RESHAPES = {
    "flatten": ([2, 3, 4, 4], [2, 48], [0, -1]),
    "shuffle": ([2, 6, 4, 4], [2, 2, 3, 4, 4], None),
    "shuffle back": ([2, 3, 2, 4, 4], [2, 6, 4, 4], None),
    "places": ([2, 4, 4, 3], [2, 16, 3], None),
    "rows": ([2, 3, 4, 5], [2, 3, 20], [0, 0, -1]),
    "heads": ([2, 20, 12], [2, 20, 3, 4], [0, 0, 3, 4]),
    "ends": ([2, 3, 1, 1], [2, 3], [0, -1]),
    "one more": ([2, 3], [2, 3, 1, 1], [0, 0, 1, 1]),
}


@pytest.mark.parametrize("name", RESHAPES)
def test_reshapes_keep_the_sizes_that_they_are_given(name: str) -> None:
    before, after, static = RESHAPES[name]
    helper, kinds = onnx.helper, onnx.TensorProto
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "shape"], ["logits"])],
        "net",
        [info("images", kinds.FLOAT, before)],
        [info("logits", kinds.FLOAT, after)],
        [onnx.numpy_helper.from_array(np.array(after), "shape")],
    )
    open_reshapes(graph, {"images": before, "logits": after})
    assert (len(graph.node) == 1) == (static is not None)
    if static is not None:
        numbers = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        assert numbers[graph.node[0].input[1]].tolist() == static
    opset = helper.make_opsetid("", 20)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.ClearField("shape")
    whole = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    images = np.arange(np.prod(before) // 2 * 5, dtype=np.float32).reshape(5, *before[1:])
    np.testing.assert_array_equal(run(whole, images), images.reshape(5, *after[1:]))
    if static is None:  # images of another size, too
        sizes = (6, 7, 3) if name == "places" else (6, 7)
        wide = np.zeros((*before[: -len(sizes)], *sizes), np.float32)
        assert run(whole, wide).shape == ((2, 42, 3) if name == "places" else (*after[:-2], 6, 7))
