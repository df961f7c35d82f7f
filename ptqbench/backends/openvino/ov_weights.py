"""Weights of layers in graphs of OpenVINO: integers with scales, rounded floats, or floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptqbench.backends.openvino.ir_weights import (
    FileWeights,
    StoredWeights,
    integer_weights,
    rounded_weights,
)
from ptqbench.backends.openvino.ov_constants import constant, source

_GROUPED = ("GroupConvolution", "GroupConvolutionBackpropData")


def read_weights(layer: Any) -> FileWeights | None:
    """Read the second input of a layer; None if it is not constant."""
    node = source(layer, 1)
    kind = layer.get_type_name()
    shape = node.get_output_partial_shape(0)
    if shape.is_dynamic:
        return None
    while node.get_type_name() == "Reshape":
        node = source(node, 0)
    stored = _stored(node)
    if stored is None:
        return None
    groups = int(shape[0].get_length()) if kind in _GROUPED else 1
    if kind == "MatMul":
        if stored.values.ndim != 2:
            return None
        swapped = not layer.get_attributes()["transpose_b"]
        return (stored.swapped() if swapped else stored).arranged(1)
    dimensions = len(shape) - (1 if kind in _GROUPED else 0)
    return stored.arranged(groups, grouped=stored.values.ndim - dimensions == 1)


def _stored(node: Any) -> StoredWeights | None:
    """The constant that weights are computed from."""
    kind = node.get_type_name()
    if kind == "Multiply":
        return _dequantized(node)
    if kind == "FakeQuantize":
        return _rounded(node)
    values = constant(node)
    name = node if kind == "Constant" else source(node, 0)
    return None if values is None else StoredWeights(name.get_friendly_name(), values)


def _dequantized(node: Any) -> StoredWeights | None:
    """Integers less their zero point, times their scale."""
    centred, scales = source(node, 0), constant(source(node, 1))
    zeros: np.ndarray | None = np.zeros((), np.float32)
    if centred.get_type_name() == "Subtract":
        centred, zeros = source(centred, 0), constant(source(centred, 1))
    if centred.get_type_name() != "Convert" or scales is None or zeros is None:
        return None
    integers = source(centred, 0)
    values = constant(integers) if integers.get_type_name() == "Constant" else None
    if values is None:
        return None
    return integer_weights(integers.get_friendly_name(), values, zeros, scales)


def _rounded(node: Any) -> StoredWeights | None:
    """Floats that a ``FakeQuantize`` rounds when the model is compiled."""
    values, *ends = (constant(source(node, place)) for place in range(5))
    known = [each for each in ends if each is not None]
    if values is None or len(known) < len(ends):
        return None
    name = source(node, 0).get_friendly_name()
    return rounded_weights(name, values, known, int(node.get_attributes()["levels"]))
