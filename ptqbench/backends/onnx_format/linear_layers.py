"""Write linear layers of inputs with more than two dimensions as one operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptqbench.backends.onnx_format.onnx_graph import readers

if TYPE_CHECKING:
    import onnx


def products_to_gemm(graph: onnx.GraphProto) -> None:
    """Let ``Gemm`` compute the rows of linear layers, in place.

    Exported, such a layer is a product with a transposed weight and a sum with the bias, which
    runtimes do not execute in int8 as one operator.
    """
    parameters = {each.name: list(each.dims) for each in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    reading = readers(graph)
    for product in [node for node in graph.node if node.op_type == "MatMul"]:
        transpose = producers.get(product.input[1])
        if transpose is None or transpose.op_type != "Transpose":
            continue
        weight = transpose.input[0]
        if len(parameters.get(weight, ())) != 2:
            continue
        outputs = parameters[weight][0]
        after = reading.get(product.output[0], [])
        total = after[0] if len(after) == 1 and after[0].op_type == "Add" else None
        names = [] if total is None else list(total.input)
        bias = [name for name in names if parameters.get(name) == [outputs]]
        last = total if total is not None and bias else product
        _replace(graph, product, last, [weight, *bias], parameters[weight])


def _replace(
    graph: onnx.GraphProto,
    product: onnx.NodeProto,
    last: onnx.NodeProto,
    parameters: list[str],
    shape: list[int],
) -> None:
    """Replace a product, and the sum behind it, by ``Gemm`` between two reshapes."""
    from onnx import helper, numpy_helper

    source, result = product.input[0], last.output[0]
    outputs, features = shape
    values = {"width": [-1, features], "outputs": [outputs], "start": [0], "end": [-1]}
    for part, value in values.items():
        array = np.array(value, np.int64)
        graph.initializer.append(numpy_helper.from_array(array, f"{result}_{part}"))

    def name(part: str) -> str:
        return f"{result}_{part}"

    nodes = [
        helper.make_node("Shape", [source], [name("shape")]),
        helper.make_node("Slice", [name("shape"), name("start"), name("end")], [name("leading")]),
        helper.make_node("Concat", [name("leading"), name("outputs")], [name("full")], axis=0),
        helper.make_node("Reshape", [source, name("width")], [name("rows")]),
        helper.make_node("Gemm", [name("rows"), *parameters], [name("flat")], transB=1),
        helper.make_node("Reshape", [name("flat"), name("full")], [result]),
    ]
    place = list(graph.node).index(last)
    for node in reversed(nodes):
        graph.node.insert(place, node)
    graph.node.remove(product)
    if last is not product:
        graph.node.remove(last)
