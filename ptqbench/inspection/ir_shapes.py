"""The shapes of an IR model's values for one image of the declared size, or 224×224."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, floor, prod
from typing import TypeAlias

import numpy as np

from ptqbench.backends.openvino.ir_structure import IrNode

SIZE = 224
"""Side of the images if the file leaves it open."""
Shapes: TypeAlias = "dict[tuple[int, int], list[int]]"
"""By operator (its ``id``) and place among its outputs."""
_POOLS = ("MaxPool", "AvgPool")
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceProd")
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_Constant: TypeAlias = "Callable[[IrNode | None], np.ndarray | None]"


def inferred_shapes(nodes: Sequence[IrNode], constant: _Constant) -> Shapes:
    """The shapes of outputs, as far as they can be inferred.

    Args:
        nodes: In order.
        constant: The value of an operator, if it is constant.
    """
    shapes: Shapes = {}
    for node in nodes:
        known = _shapes(node, shapes, constant)
        for place, shape in enumerate(known):
            if shape is not None and min(shape, default=0) >= 0:
                shapes[id(node), place] = shape
    return shapes


def _shapes(node: IrNode, shapes: Shapes, constant: _Constant) -> list[list[int] | None]:
    if node.kind == "Parameter":
        return [_of_one_image(shape) for shape in node.shapes]
    if node.kind == "Const":
        return [node.stored_shape]
    # Files need not say shapes; nothing that matters here has none.
    declared = [shape if min(shape, default=-1) >= 0 else None for shape in node.shapes]
    if not node.sources or None not in declared:
        return list(declared)
    inputs = [shapes.get((id(source), output)) for source, output in node.sources]
    if inputs[0] is None:
        return list(declared)
    constants = [constant(source) for source, _ in node.sources]
    try:
        shape = _output(node, inputs, constants)
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        shape = None  # of a form that is not known here
    parts = [shape] if len(declared) == 1 else _parts(node, shape)
    return [
        _but_for_images(node, place) if part is None else part for place, part in enumerate(parts)
    ]


def _of_one_image(shape: list[int]) -> list[int]:
    return [1, *(size if size > 0 else SIZE for size in shape[1:])]


def _but_for_images(node: IrNode, place: int) -> list[int] | None:
    """The declared shape of an output of which the number of images alone is open."""
    shape = node.shapes[place]
    return [1, *shape[1:]] if shape and shape[0] == -1 and min(shape[1:], default=-1) > 0 else None


def _parts(node: IrNode, shape: list[int] | None) -> list[list[int] | None]:
    """The shapes of several outputs, from the first one's."""
    if node.kind == "MaxPool":
        return [shape, shape]
    if node.kind == "Split" and shape is not None:
        return [shape] * len(node.shapes)
    return [None] * len(node.shapes)


def _output(
    node: IrNode, inputs: list[list[int] | None], constants: list[np.ndarray | None]
) -> list[int] | None:
    first, kind = inputs[0], node.kind
    assert first is not None
    if kind in _CONVOLUTIONS:
        weights = inputs[1]
        if weights is None:
            return None
        kernel = weights[-(len(first) - 2) :]
        channels = prod(weights[:2]) if kind == "GroupConvolution" else weights[0]
        return [first[0], channels, *_windows(node, first[2:], kernel)]
    if kind in _POOLS:
        return [*first[:2], *_windows(node, first[2:], _numbers(node, "kernel"))]
    if kind in _REDUCTIONS:
        return _reduced(node, first, constants[1])
    if kind == "Reshape" and constants[1] is not None:
        return reshaped(node, first, [int(size) for size in constants[1].reshape(-1)])
    if kind == "MatMul":
        return _product(node, first, inputs[1])
    if kind == "Transpose" and constants[1] is not None:
        return [first[int(axis)] for axis in constants[1].reshape(-1)]
    if kind == "Concat":
        return _joined(node, first, inputs)
    if kind == "Split" and constants[1] is not None:
        axis, count = int(constants[1].reshape(())), int(node.attributes["num_splits"])
        return [size // count if i == axis % len(first) else size for i, size in enumerate(first)]
    if kind == "Pad" and constants[1] is not None and constants[2] is not None:
        ends = zip(first, constants[1].tolist(), constants[2].tolist(), strict=True)
        return [size + before + behind for size, before, behind in ends]
    return _elementwise(node, inputs)


def _numbers(node: IrNode, name: str) -> list[int]:
    return [int(part) for part in node.attributes[name].split(",")]


def _windows(node: IrNode, sizes: list[int], kernel: list[int]) -> list[int]:
    """How often a window fits into each dimension."""
    strides = _numbers(node, "strides")
    same = node.attributes.get("auto_pad", "").startswith("same")
    if same:
        return [ceil(size / stride) for size, stride in zip(sizes, strides, strict=True)]
    dilations = _numbers(node, "dilations") if "dilations" in node.attributes else [1] * len(kernel)
    begins, ends = _numbers(node, "pads_begin"), _numbers(node, "pads_end")
    up = node.attributes.get("rounding_type", "floor").startswith("ceil")
    counts = []
    for i, size in enumerate(sizes):
        room = size + begins[i] + ends[i] - dilations[i] * (kernel[i] - 1) - 1
        count = (ceil if up else floor)(room / strides[i]) + 1
        # PyTorch leaves out a window that begins behind the values.
        if up and (count - 1) * strides[i] >= size + begins[i]:
            count -= 1
        counts.append(count)
    return counts


def _reduced(node: IrNode, shape: list[int], axes: np.ndarray | None) -> list[int] | None:
    if axes is None:
        return None
    places = {int(axis) % len(shape) for axis in axes.reshape(-1)}
    if node.attributes.get("keep_dims", "false").lower() in ("true", "1"):
        return [1 if i in places else size for i, size in enumerate(shape)]
    return [size for i, size in enumerate(shape) if i not in places]


def reshaped(node: IrNode, shape: list[int], target: list[int]) -> list[int]:
    """The shape that a ``Reshape`` gives values.

    Args:
        node: The operator.
        shape: Of the values.
        target: The numbers that it reads: 0 keeps a size, −1 is what is left.
    """
    sizes = list(target)
    if node.attributes.get("special_zero", "false").lower() in ("true", "1"):
        sizes = [shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    if -1 in sizes:
        rest = prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = prod(shape) // rest
    return sizes


def _product(node: IrNode, left: list[int], right: list[int] | None) -> list[int] | None:
    if right is None or len(left) < 2 or len(right) < 2:
        return None

    def turned(name: str) -> bool:
        return node.attributes.get(name, "false").lower() in ("true", "1")

    rows = left[-1] if turned("transpose_a") else left[-2]
    columns = right[-2] if turned("transpose_b") else right[-1]
    return [*np.broadcast_shapes(tuple(left[:-2]), tuple(right[:-2])), rows, columns]


def _joined(node: IrNode, first: list[int], inputs: Sequence[list[int] | None]) -> list[int] | None:
    axis, total = int(node.attributes["axis"]) % len(first), 0
    for shape in inputs:
        if shape is None:
            return None
        total += shape[axis]
    return [total if i == axis else size for i, size in enumerate(first)]


def _elementwise(node: IrNode, inputs: Sequence[list[int] | None]) -> list[int] | None:
    """The shape of what is computed value by value; of anything else it is not known."""
    if node.kind in _ALONE:
        return inputs[0]
    if node.kind not in _TOGETHER or None in inputs:
        return None
    return list(np.broadcast_shapes(*(tuple(each) for each in inputs if each is not None)))


_ALONE = frozenset(
    {
        *("FakeQuantize", "Convert", "ReLU", "Clamp", "Sigmoid", "Swish", "HSwish", "HSigmoid"),
        *("Gelu", "Tanh", "Elu", "PReLU", "Mish", "SoftPlus", "Sqrt", "Abs", "Exp", "Erf"),
        *("SoftMax", "BatchNormInference", "MVN", "NormalizeL2", "GroupNormalization", "Result"),
    }
)
_TOGETHER = frozenset(
    {"Add", "Multiply", "Subtract", "Divide", "Maximum", "Minimum", "Power", "Equal", "Select"}
)
