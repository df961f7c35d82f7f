"""Weights of layers in IR files: integers with scales, rounded floats, or floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptqbench.backends.openvino.ov_constants import constant, source

_GROUPED = ("GroupConvolution", "GroupConvolutionBackpropData")
_HALF = 128


@dataclass(frozen=True)
class FileWeights:
    """Weights of one layer.

    Attributes:
        name: Of the constant.
        values: int8, or float32; ``C_out×C_in/groups×…``, or ``C_in×C_out/groups×…`` if transposed.
        scales: One per output channel, or one; None for floats.
        zero_points: Likewise.
        per_channel: Whether every output channel has a scale of its own.
        groups: Of a convolution.
    """

    name: str
    values: np.ndarray
    scales: np.ndarray | None = None
    zero_points: np.ndarray | None = None
    per_channel: bool = False
    groups: int = 1

    @property
    def floats(self) -> np.ndarray:
        """What the weights stand for, float32."""
        if self.scales is None or self.zero_points is None:
            return self.values
        shape = (-1,) + (1,) * (self.values.ndim - 1)
        centred = self.values.astype(np.float32) - self.zero_points.reshape(shape)
        floats: np.ndarray = centred * self.scales.reshape(shape)
        return floats


@dataclass(frozen=True)
class _Stored:
    """A constant as the file stores it; scales and zero points spread over its values."""

    name: str
    values: np.ndarray
    scales: np.ndarray | None = None
    zero_points: np.ndarray | None = None


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
        return _arranged(_swapped(stored) if swapped else stored, 1)
    dimensions = len(shape) - (1 if kind in _GROUPED else 0)
    axes = stored.values.ndim - dimensions
    return _arranged(stored, groups, grouped=axes == 1)


def _swapped(stored: _Stored) -> _Stored:
    def swap(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.swapaxes(np.broadcast_to(values, shape), 0, 1)

    shape = stored.values.shape
    scales, zeros = swap(stored.scales), swap(stored.zero_points)
    if stored.scales is not None and stored.scales.size == 1:
        scales, zeros = stored.scales, stored.zero_points
    return _Stored(stored.name, np.ascontiguousarray(stored.values.T), scales, zeros)


def _arranged(stored: _Stored, groups: int, *, grouped: bool = False) -> FileWeights:
    """Bring weights into the order output channel, input channel, kernel."""
    values = stored.values
    lead = 2 if grouped else 1

    def by_channel(spread: np.ndarray) -> np.ndarray:
        if spread.size == 1:
            return spread.reshape(1)
        full = np.broadcast_to(spread, values.shape)
        return full[(slice(None),) * lead + (0,) * (values.ndim - lead)].reshape(-1)

    shape = (-1, *values.shape[2:]) if grouped else values.shape
    arranged = np.ascontiguousarray(values).reshape(shape)
    if stored.scales is None or stored.zero_points is None:
        return FileWeights(stored.name, arranged.astype(np.float32), groups=groups)
    scales, zeros = by_channel(stored.scales), by_channel(stored.zero_points)
    per_channel = scales.size > 1 or len(arranged) == 1
    return FileWeights(stored.name, arranged, scales, zeros, per_channel, groups)


def _stored(node: Any) -> _Stored | None:
    """The constant that weights are computed from."""
    kind = node.get_type_name()
    if kind == "Multiply":
        return _dequantized(node)
    if kind == "FakeQuantize":
        return _rounded(node)
    values = constant(node)
    name = node if kind == "Constant" else source(node, 0)
    return None if values is None else _Stored(name.get_friendly_name(), values)


def _dequantized(node: Any) -> _Stored | None:
    """Integers less their zero point, times their scale."""
    centred, scales = source(node, 0), constant(source(node, 1))
    zeros: np.ndarray | None = np.zeros((), np.float32)
    if centred.get_type_name() == "Subtract":
        centred, zeros = source(centred, 0), constant(source(centred, 1))
    if centred.get_type_name() != "Convert" or scales is None or zeros is None:
        return None
    integers = source(centred, 0)
    values = constant(integers) if integers.get_type_name() == "Constant" else None
    if values is None or values.dtype not in (np.int8, np.uint8):
        return None
    zeros = np.broadcast_to(zeros, scales.shape).round().astype(np.int64)
    if values.dtype == np.uint8:
        values, zeros = (values.astype(np.int16) - _HALF).astype(np.int8), zeros - _HALF
    return _Stored(integers.get_friendly_name(), values, scales, zeros)


def _rounded(node: Any) -> _Stored | None:
    """Floats that a ``FakeQuantize`` rounds when the model is compiled."""
    values, *ends = (constant(source(node, place)) for place in range(5))
    low, high, new_low, new_high = ends
    steps = int(node.get_attributes()["levels"]) - 1
    if any(each is None for each in (values, *ends)) or not 1 <= steps <= 255:
        return None
    assert values is not None and low is not None and high is not None
    assert new_low is not None and new_high is not None
    counts = np.round((np.clip(values, low, high) - low) / (high - low) * steps)
    scales = (new_high - new_low) / steps
    first = np.round(new_low / scales)  # the integer of the lowest weight
    shift = np.where(first < -_HALF, -_HALF - first, np.where(first >= 0, -_HALF - first, 0))
    integers = np.clip(counts + first + shift, -_HALF, _HALF - 1).astype(np.int8)
    name = source(node, 0).get_friendly_name()
    return _Stored(name, integers, scales, shift.astype(np.int64))
