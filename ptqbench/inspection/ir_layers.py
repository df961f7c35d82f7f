"""The convolutions and linear layers of an IR file, and how each is quantized in it."""

from __future__ import annotations

import re
from math import prod

import numpy as np

from ptqbench.backends.openvino.ir_structure import IrNode
from ptqbench.backends.openvino.ir_weights import (
    FileWeights,
    StoredWeights,
    integer_weights,
    rounded_weights,
)
from ptqbench.inspection.file_layers import FLOAT, INT8, WEIGHTS, FileLayer
from ptqbench.inspection.ir_flow import GROUPED, LAYERS, IrFlow
from ptqbench.inspection.ir_view import IrView

_TRANSPOSED = ("ConvolutionBackpropData", "GroupConvolutionBackpropData")
_SHAPED = ("Reshape", "Transpose", "Squeeze", "Unsqueeze")
_PATHS = (re.compile(r"^(?:self\.)?(.+?)\.weight(?:[._].*)?$"), re.compile(r"^__module\.(.+?)/"))
"""Module paths in names of weights, as ptqbench and exporters leave them, and of operators."""


def layers_of(view: IrView, flow: IrFlow) -> tuple[FileLayer, ...]:
    """Return the layers of a model; products of two activations are none."""
    layers = (_layer(view, flow, node) for node in view.nodes if node.kind in LAYERS)
    return tuple(layer for layer in layers if layer is not None)


def _layer(view: IrView, flow: IrFlow, node: IrNode) -> FileLayer | None:
    source = view.source(node, 1)
    shape = view.shape(node, 1)
    stored = _stored(view, source)
    if stored is None or shape is None:
        return _compressed(view, node, shape) if source is not None else None
    weights = _arranged(stored, node, shape)
    if weights is None:
        return None
    obstacle, signed = "", False
    if weights.scales is not None:
        obstacle, signed = _input(view, flow, node, weights)
    stored_as = _stored_type(view, source)
    shifted = weights.zero_points is not None and bool(weights.zero_points.any())
    asymmetric = shifted or stored_as == "u8"
    is_int8 = weights.scales is not None and not obstacle and not asymmetric
    depthwise = node.kind in GROUPED and 1 < weights.groups == len(weights.values)
    return FileLayer(
        name=layer_name(view, node, stored.name),
        kind=node.kind,
        precision=INT8 if is_int8 else FLOAT if weights.scales is None else WEIGHTS,
        multiply_adds=_multiply_adds(view, node, shape),
        depthwise=depthwise,
        groups=weights.groups,
        weights=None if weights.scales is None else weights.values,
        scales=0 if weights.scales is None else int(weights.scales.size),
        asymmetric=asymmetric,
        signed=signed,  # kernels shift s8 to u8, so that it saturates as u8 does
        obstacle=obstacle,
    )


def _input(view: IrView, flow: IrFlow, node: IrNode, weights: FileWeights) -> tuple[str, bool]:
    """Why integer weights are executed in float32, or nothing, and whether they are met by s8."""
    source = view.source(node, 0)
    value = None if source is None else flow.ranges.get(id(source))
    if value is None:
        while source is not None and source.kind in _SHAPED:
            source = view.source(source, 0)
        kind = "the image" if source is None or source.kind == "Parameter" else source.kind
        return f"its input, from {kind}, is not quantized", False
    if not value.is_one and weights.groups == 1:
        return "its input has a scale for each channel", False
    return "", value.signed


def _compressed(view: IrView, node: IrNode, shape: list[int] | None) -> FileLayer | None:
    """A layer with weights of a type that is not read, such as 4 bits; None if it has none."""
    source = view.source(node, 1)
    kind = _stored_type(view, source)
    if source is None or shape is None or not kind:
        return None
    return FileLayer(
        name=layer_name(view, node, source.name),
        kind=node.kind,
        precision=FLOAT if "f" in kind else WEIGHTS,
        multiply_adds=_multiply_adds(view, node, shape),
        depthwise=False,
        groups=shape[0] if node.kind in GROUPED else 1,
        weights=None,
        obstacle="" if "f" in kind else f"they are stored as {kind}",
    )


def _stored_type(view: IrView, node: IrNode | None) -> str:
    """The type of the constant that weights are computed from; empty if they are computed."""
    while node is not None and node.kind != "Const":
        if node.kind not in ("Convert", "Subtract", "Multiply", "Reshape", "FakeQuantize"):
            return ""
        node = view.source(node, 0)
    return "" if node is None else node.attributes.get("element_type", "")


def layer_name(view: IrView, node: IrNode, weights: str) -> str:
    """Module path of a layer if the file has kept it, else the name of its operator.

    A converter that folds a BatchNorm names the layer after a multiplication; the operator behind
    it is then said as well.
    """
    for pattern, name in zip(_PATHS, (weights, node.name), strict=True):
        if match := pattern.match(name):
            return match[1]
    behind = [match[1] for reader in view.after(node) if (match := _PATHS[1].match(reader.name))]
    return f"{node.name} (before {behind[0]})" if behind else node.name


def _stored(view: IrView, node: IrNode | None) -> StoredWeights | None:
    """The constant that weights are computed from."""
    while node is not None and node.kind == "Reshape" and view.constant(node) is None:
        node = view.source(node, 0)
    if node is None:
        return None
    if node.kind == "Multiply":
        return _dequantized(view, node)
    if node.kind == "FakeQuantize":
        values, *ends = (view.constant(view.source(node, place)) for place in range(5))
        known = [each for each in ends if each is not None]
        name = node.sources[0][0].name
        if values is None or len(known) < 4:
            return None
        return rounded_weights(name, values, known, int(node.attributes.get("levels", 0)))
    values = view.constant(node)
    if values is None or values.dtype.kind != "f":
        return None
    return StoredWeights(node.name, values)


def _dequantized(view: IrView, node: IrNode) -> StoredWeights | None:
    centred, scales = view.source(node, 0), view.constant(view.source(node, 1))
    zeros: np.ndarray | None = np.zeros((), np.float32)
    if centred is not None and centred.kind == "Subtract":
        zeros = view.constant(view.source(centred, 1))
        centred = view.source(centred, 0)
    if centred is None or centred.kind != "Convert" or scales is None or zeros is None:
        return None
    integers = view.source(centred, 0)
    values = view.constant(integers)
    if integers is None or integers.kind != "Const" or values is None:
        return None
    return integer_weights(integers.name, values, zeros, scales)


def _arranged(stored: StoredWeights, node: IrNode, shape: list[int]) -> FileWeights | None:
    if node.kind == "MatMul":
        if stored.values.ndim != 2:
            return None
        turned = node.attributes.get("transpose_b", "false").lower() in ("true", "1")
        return (stored if turned else stored.swapped()).arranged(1)
    grouped = node.kind in GROUPED
    axes = stored.values.ndim - len(shape) + (1 if grouped else 0)
    weights = stored.arranged(shape[0] if grouped else 1, grouped=axes == 1)
    if node.kind in _TRANSPOSED and not grouped:
        turned_values = np.swapaxes(weights.values, 0, 1)
        return FileWeights(
            weights.name,
            turned_values,
            weights.scales,
            weights.zero_points,
            weights.per_channel,
            weights.groups,
        )
    return weights


def _multiply_adds(view: IrView, node: IrNode, weights: list[int]) -> int | None:
    """Products of one image: outputs times weights of each, or inputs where it is transposed."""
    read, written = view.shape(node, 0), view.shapes.get((id(node), 0))
    inner = weights[2:] if node.kind in GROUPED else weights[1:]
    if node.kind in _TRANSPOSED:
        return None if read is None else prod(read[1:]) * prod(inner)
    if written is None:
        return None
    if node.kind == "MatMul":
        turned = node.attributes.get("transpose_b", "false").lower() in ("true", "1")
        return prod(written[1:]) * (weights[-1] if turned else weights[-2])
    return prod(written[1:]) * prod(inner)
