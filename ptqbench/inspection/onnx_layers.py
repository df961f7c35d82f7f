"""The convolutions and linear layers of an ONNX file, and how each is quantized in it."""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ptqbench.inspection.file_layers import DYNAMIC, FLOAT, INT8, WEIGHTS, FileLayer
from ptqbench.inspection.onnx_view import DEQUANTIZE, QUANTIZE, OnnxView, attribute

if TYPE_CHECKING:
    import onnx

_PLAIN = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_OPERATORS = {"QLinearConv": "Conv", "QLinearMatMul": "MatMul", "QGemm": "Gemm"}
_RANGELESS = {"ConvInteger": "Conv", "MatMulInteger": "MatMul", "DynamicQuantizeMatMul": "MatMul"}
_PATH = re.compile(r"^(?:q_output_|dq_output_)?(.+?)\.weight(?:[._].*)?$")
_FOLLOWERS = ("Relu", "Clip")
"""What a runtime fuses into the layer in front of a quantization."""


def layers_of(view: OnnxView) -> tuple[FileLayer, ...]:
    """Return the layers of a model; products of two activations are none."""
    layers = (_layer(view, node) for node in view.nodes)
    return tuple(layer for layer in layers if layer is not None)


def _layer(view: OnnxView, node: onnx.NodeProto) -> FileLayer | None:
    kind = node.op_type
    if kind in _OPERATORS:
        return _operator(view, node, _OPERATORS[kind])
    if kind in _RANGELESS:
        weights = view.constant(node, 1)
        if weights is None:
            return None
        exact = weights.dtype == np.uint8
        return _make(view, node, _RANGELESS[kind], weights, DYNAMIC, exact=exact)
    if kind not in _PLAIN or len(node.input) < 2:
        return None
    stored = view.constant(node, 1)
    if stored is not None:
        return _make(view, node, kind, stored, FLOAT)
    dequantized = view.source(node.input[1])
    if dequantized is None or dequantized.op_type != DEQUANTIZE:
        return None
    integers = view.constant(dequantized, 0)
    return None if integers is None else _qdq(view, node, dequantized, integers)


def _operator(view: OnnxView, node: onnx.NodeProto, kind: str) -> FileLayer | None:
    """A layer that is written as an operator on integers."""
    weights, zero = view.constant(node, 3), view.constant(node, 2)
    if weights is None:
        return None
    signed = zero is not None and zero.dtype == np.int8
    return _make(
        view,
        node,
        kind,
        weights,
        INT8,
        scales=view.constant(node, 4),
        zeros=view.constant(node, 5),
        signed=signed,
        exact=signed or weights.dtype == np.uint8,
        place=3,
    )


def _qdq(
    view: OnnxView, node: onnx.NodeProto, dequantized: onnx.NodeProto, integers: np.ndarray
) -> FileLayer | None:
    """A layer whose weights are dequantized; int8 if what it reads and writes is quantized, too."""
    source = view.source(node.input[0])
    obstacle, signed, shared = "", False, False
    if source is None or source.op_type != DEQUANTIZE:
        kind = "the image" if source is None else source.op_type
        obstacle = f"its input, from {kind}, is not quantized"
    else:
        zero, scale = view.constant(source, 2), view.constant(source, 1)
        signed = zero is not None and zero.dtype == np.int8
        shared = signed and len(view.readers.get(source.output[0], [])) > 1
        after = _quantization(view, node)
        if scale is not None and scale.size > 1:
            obstacle = "its input has a scale for each channel"
        elif after is None:
            obstacle = "its output is not quantized"
        else:
            shared = shared or _is_shared(view, after)
            written = view.constant(after, 1)
            if written is not None and written.size > 1:
                obstacle = "its output has a scale for each channel"
    return _make(
        view,
        node,
        node.op_type,
        integers,
        WEIGHTS if obstacle else INT8,
        scales=view.constant(dequantized, 1),
        zeros=view.constant(dequantized, 2),
        signed=signed,
        exact=integers.dtype == np.uint8,
        shared=shared,
        obstacle=obstacle,
        stored=dequantized.input[0],
    )


def _quantization(view: OnnxView, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The quantization of a layer's output, behind an activation perhaps."""
    name = node.output[0]
    while len(after := view.readers.get(name, [])) == 1:
        if after[0].op_type == QUANTIZE:
            return after[0]
        if after[0].op_type not in _FOLLOWERS:
            return None
        name = after[0].output[0]
    return None


def _is_shared(view: OnnxView, quantization: onnx.NodeProto) -> bool:
    """Whether what is quantized to s8 is read by several operators."""
    zero = view.constant(quantization, 2)
    if zero is None or zero.dtype != np.int8:
        return False
    conversions = view.readers.get(quantization.output[0], [])
    return sum(len(view.readers.get(each.output[0], [])) for each in conversions) > 1


def _make(
    view: OnnxView,
    node: onnx.NodeProto,
    kind: str,
    weights: np.ndarray,
    precision: str,
    *,
    scales: np.ndarray | None = None,
    zeros: np.ndarray | None = None,
    signed: bool = False,
    exact: bool = False,
    shared: bool = False,
    obstacle: str = "",
    place: int = 1,
    stored: str = "",
) -> FileLayer | None:
    groups = int(attribute(node, "group", 1)) if "Conv" in kind else 1  # type: ignore[call-overload]
    linear = kind == "MatMul" or (kind == "Gemm" and not attribute(node, "transB"))
    if weights.ndim < 2:
        return None
    shape = weights.shape
    if linear:
        weights = np.swapaxes(weights, -1, -2).reshape(-1, shape[-2])
    elif kind == "ConvTranspose":
        weights = np.swapaxes(weights, 0, 1)
    integers = weights if weights.dtype in (np.int8, np.uint8) else None
    middle = 128 if weights.dtype == np.uint8 else 0
    return FileLayer(
        name=_name(node, stored or node.input[place]),
        kind=kind,
        precision=precision,
        multiply_adds=_multiply_adds(view, node, shape, kind),
        depthwise="Conv" in kind and 1 < groups == len(weights),
        groups=groups,
        weights=integers,
        scales=0 if integers is None or scales is None else int(scales.size),
        asymmetric=zeros is not None and bool((zeros != middle).any()),
        signed=signed,
        exact=exact,
        shared=shared,
        obstacle=obstacle,
    )


def _name(node: onnx.NodeProto, weights: str) -> str:
    match = _PATH.match(weights)
    return match[1] if match else node.name or node.output[0]


def _multiply_adds(
    view: OnnxView, node: onnx.NodeProto, weights: tuple[int, ...], kind: str
) -> int | None:
    """Products of one image; a convolution multiplies each output by ``I/groups×K×…`` weights."""
    read, written = view.shapes.get(node.input[0]), view.shapes.get(node.output[0])
    if kind == "ConvTranspose":
        return None if read is None else prod(read[1:]) * prod(weights[1:])
    if written is None:
        return None
    if kind == "Conv":
        return prod(written[1:]) * prod(weights[1:])
    features = weights[-2] if kind == "MatMul" or not attribute(node, "transB") else weights[-1]
    return prod(written[1:]) * features
