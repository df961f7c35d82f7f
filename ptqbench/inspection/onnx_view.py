"""An ONNX model as something to look things up in: constants, producers, readers, shapes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ptqbench.backends.onnx_format.onnx_graph import constants, readers, static_shapes
from ptqbench.backends.onnx_format.qdq_graph import MOVES

if TYPE_CHECKING:
    import onnx

SIZE = 224
"""Side of the images if the file leaves it open."""
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_STANDARD = {
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearSigmoid": ("Identity", (0,)),
    "QLinearLeakyRelu": ("Identity", (0,)),
    "QLinearSoftmax": ("Identity", (0,)),
    "QGemm": ("Gemm", (0, 3)),
}
"""Operators of ONNX with the same shapes as those of ONNX Runtime, and the inputs that count."""


@dataclass(frozen=True)
class OnnxView:
    """A model with what is looked up in it.

    Attributes:
        nodes: In order, without constants.
        values: Initializers and constants by name.
        producers: The node that writes a value.
        readers: The nodes that read a value.
        shapes: Of values, as far as they can be inferred, for one image.
        outputs: Names of the model's outputs.
    """

    nodes: tuple[onnx.NodeProto, ...]
    values: dict[str, np.ndarray]
    producers: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]
    shapes: dict[str, list[int]]
    outputs: frozenset[str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> OnnxView:
        """Look at a model; what it weighs has to be inside."""
        graph = model.graph
        return cls(
            nodes=tuple(node for node in graph.node if node.op_type != "Constant"),
            values=constants(model),
            producers={name: node for node in graph.node for name in node.output},
            readers=readers(graph),
            shapes=inferred_shapes(model),
            outputs=frozenset(output.name for output in graph.output),
        )

    def constant(self, node: onnx.NodeProto, place: int) -> np.ndarray | None:
        """The constant that a node reads at a place among its inputs, if it does."""
        return self.values.get(node.input[place]) if place < len(node.input) else None

    def source(self, name: str) -> onnx.NodeProto | None:
        """The node that a value comes from, whatever only moved it in between."""
        node = self.producers.get(name)
        while node is not None and node.op_type in MOVES:
            node = self.producers.get(node.input[0])
        return node


def inferred_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shapes of a model's values for one image of the declared size, or 224×224.

    Args:
        model: It is not changed.
    """
    import onnx

    copied = copy.deepcopy(model)
    graph = copied.graph
    constant = {each.name for each in graph.initializer}
    for value in graph.input:
        if value.name in constant:
            continue
        for place, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.dim_value or place == 0:
                dimension.dim_value = 1 if place == 0 else SIZE
    del graph.value_info[:]
    for node in graph.node:
        _standardize(node)
    for output in graph.output:  # declared sizes would contradict those for one image
        output.type.tensor_type.ClearField("shape")
    try:
        copied = onnx.shape_inference.infer_shapes(copied, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return {each.name: list(each.dims) for each in graph.initializer}
    return static_shapes(copied)


def _standardize(node: onnx.NodeProto) -> None:
    """Turn an operator of ONNX Runtime into one of ONNX with the same shapes, in place."""
    if node.op_type == "QLinearConcat":
        kind, places = "Concat", tuple(range(2, len(node.input), 3))
    elif node.op_type in _STANDARD:
        kind, places = _STANDARD[node.op_type]
    else:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            node.domain = ""
        return
    inputs = [node.input[place] for place in places]
    node.op_type, node.domain = kind, ""
    del node.input[:]
    node.input.extend(inputs)


def attribute(node: onnx.NodeProto, name: str, default: int | Sequence[int] = 0) -> object:
    """The value of a node's attribute."""
    from onnx import helper

    for each in node.attribute:
        if each.name == name:
            return helper.get_attribute_value(each)
    return default
