"""Rewrite ONNX graphs: what an export leaves over, open sizes, pooling that has an int8 kernel."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ptqbench.backends.onnx_format.open_reshapes import open_reshapes

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "images", "logits"
"""Names of the input and the output of a model."""
_BATCH, _HEIGHT, _WIDTH = "batch", "height", "width"
_SMALL = 1024
"""Elements up to which constants are computed from others: shapes and axes, not weights."""
_ROUNDINGS = ("QuantizeLinear", "DequantizeLinear")
_KEPT = (*_ROUNDINGS, "RandomNormal", "RandomUniform")


def cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without what an export leaves over, which is worked on in place.

    Constants become initializers, each once; reshapes to the same shape go; means over rows and
    columns become global average pooling, which has an int8 kernel; traces of the source code,
    with paths of this machine, go.
    """
    graph = model.graph
    shapes = static_shapes(model)
    _fold_constants(graph)
    _drop_reshapes(graph, shapes)
    _pool(graph, shapes)
    _drop_unused(graph)
    for node in graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.ClearField("doc_string")
        del value.metadata_props[:]
    for field in ("doc_string",):
        model.ClearField(field)
        graph.ClearField(field)
    del model.metadata_props[:]
    del graph.metadata_props[:]
    return model


def opened(model: onnx.ModelProto, *, sizes: bool) -> onnx.ModelProto:
    """Return a copy of a model exported at a fixed size that takes any number of images.

    Args:
        model: Cleaned.
        sizes: Whether it takes images of any size as well.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    open_reshapes(graph, static_shapes(model))
    del graph.value_info[:]
    _name_sizes(graph, sizes)
    _drop_unused(graph)
    return model


def _name_sizes(graph: onnx.GraphProto, sizes: bool) -> None:
    """Replace fixed sizes of the input and the output by names."""
    names = [_BATCH, None, *([_HEIGHT, _WIDTH] if sizes else [])]
    for value in graph.input:
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if name is not None:
                dimension.dim_param = name
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = _BATCH


def static_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shapes of values as far as they are known and fixed."""
    shapes = {}
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dimensions = tensor.shape.dim
        if tensor.HasField("shape") and all(
            dimension.HasField("dim_value") for dimension in dimensions
        ):
            shapes[value.name] = [dimension.dim_value for dimension in dimensions]
    for initializer in graph.initializer:
        shapes[initializer.name] = list(initializer.dims)
    for node in graph.node:  # roundings that were moved have no shape on record
        if node.op_type in _ROUNDINGS and node.input[0] in shapes:
            shapes.setdefault(node.output[0], shapes[node.input[0]])
    return shapes


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The values of initializers and of nodes ``Constant``, by name."""
    from onnx import numpy_helper

    values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    values[node.output[0]] = numpy_helper.to_array(attribute.t)
    return values


def readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each value."""
    result: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            result.setdefault(name, []).append(node)
    return result


def replace_value(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let every node, and the output of the graph, read one value instead of another."""
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Make initializers of constants, and of what small ones are computed from; equal ones once.

    What is left computed keeps a runtime from folding the BatchNorm behind it.
    """
    from onnx import numpy_helper

    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    types = _element_types(graph)
    first: dict[tuple[object, ...], str] = {}
    for node in list(graph.node):
        value = None if node.op_type in _KEPT else _constant(node, values, types)
        if value is None:
            continue
        name = node.output[0]
        key = (value.dtype.str, value.shape, value.tobytes())
        if key in first:
            replace_value(graph, name, first[key])
        else:
            first[key] = name
            values[name] = value
            graph.initializer.append(numpy_helper.from_array(value, name))
        graph.node.remove(node)


def _constant(
    node: onnx.NodeProto, values: Mapping[str, np.ndarray], types: Mapping[str, int]
) -> np.ndarray | None:
    """What a node computes; None if it reads what is not constant, or not small."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    inputs = {name: values[name] for name in node.input if name in values}
    if node.op_type == "CastLike" and node.input[0] in values and node.input[1] in types:
        # Of the second input only the type is read.
        kind = helper.tensor_dtype_to_np_dtype(types[node.input[1]])
        return np.asarray(values[node.input[0]]).astype(kind)
    limit = np.inf if node.op_type == "Shape" else _SMALL
    small = all(name in values and values[name].size <= limit for name in node.input)
    if len(node.output) != 1 or not small:
        return None
    return np.asarray(ReferenceEvaluator(node).run(None, inputs)[0])


def _element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """The types of values as far as they are known, as ONNX numbers them."""
    known = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type
    }
    return known | {each.name: each.data_type for each in graph.initializer}


def _drop_reshapes(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> None:
    """Leave out reshapes that change nothing."""
    outputs = {value.name for value in graph.output}
    for node in _nodes(graph, "Reshape"):
        source, result = node.input[0], node.output[0]
        same = source in shapes and shapes[source] == shapes.get(result)
        if same and result not in outputs:
            replace_value(graph, result, source)
            graph.node.remove(node)


def _pool(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> None:
    """Turn means over rows and columns into global average pooling, flattened if need be."""
    from onnx import helper, numpy_helper

    initializers = {each.name: each for each in graph.initializer}
    for node in _nodes(graph, "ReduceMean"):
        keeps = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        rank = len(shapes.get(node.input[0], ()))
        if rank != 4 or len(node.input) < 2 or node.input[1] not in initializers:
            continue
        axes = numpy_helper.to_array(initializers[node.input[1]]).reshape(-1)
        if sorted(int(axis) % rank for axis in axes) != [2, 3]:
            continue
        node.op_type = "GlobalAveragePool"
        del node.attribute[:]
        del node.input[1:]
        if not keeps:
            result = node.output[0]
            node.output[0] = f"{result}_map"
            shape = numpy_helper.from_array(np.array([0, -1], np.int64), f"{result}_shape")
            graph.initializer.append(shape)
            flatten = helper.make_node("Reshape", [node.output[0], shape.name], [result])
            graph.node.insert(list(graph.node).index(node) + 1, flatten)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Leave out nodes and initializers that nothing reads."""
    outputs = {value.name for value in graph.output}
    while True:
        used = outputs | {name for node in graph.node for name in node.input}
        unused = [node for node in graph.node if not used.intersection(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    for initializer in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(initializer)


def _nodes(graph: onnx.GraphProto, kind: str) -> Iterator[onnx.NodeProto]:
    """The nodes of a kind, as a list, for the graph may change meanwhile."""
    return iter([node for node in graph.node if node.op_type == kind])
