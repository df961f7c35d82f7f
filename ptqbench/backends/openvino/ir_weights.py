"""Weights as IR files store them, brought into one order: arithmetic alone, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
class StoredWeights:
    """A constant as the file stores it; scales and zero points spread over its values.

    Attributes:
        name: Of the constant.
        values: int8 if there are scales, else floats.
        scales: Of a shape that spreads over the values; None for floats.
        zero_points: Likewise.
    """

    name: str
    values: np.ndarray
    scales: np.ndarray | None = None
    zero_points: np.ndarray | None = None

    def swapped(self) -> StoredWeights:
        """A matrix the other way round."""
        shape = self.values.shape

        def swap(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else np.swapaxes(np.broadcast_to(values, shape), 0, 1)

        scales, zeros = swap(self.scales), swap(self.zero_points)
        if self.scales is not None and self.scales.size == 1:
            scales, zeros = self.scales, self.zero_points
        return StoredWeights(self.name, np.ascontiguousarray(self.values.T), scales, zeros)

    def arranged(self, groups: int, *, grouped: bool = False) -> FileWeights:
        """Bring weights into the order output channel, input channel, kernel.

        Args:
            groups: Of the convolution.
            grouped: Whether groups are the first dimension, before output channels.
        """
        values = self.values
        lead = 2 if grouped else 1

        def by_channel(spread: np.ndarray) -> np.ndarray:
            if spread.size == 1:
                return spread.reshape(1)
            full = np.broadcast_to(spread, values.shape)
            return full[(slice(None),) * lead + (0,) * (values.ndim - lead)].reshape(-1)

        shape = (-1, *values.shape[2:]) if grouped else values.shape
        arranged = np.ascontiguousarray(values).reshape(shape)
        if self.scales is None or self.zero_points is None:
            return FileWeights(self.name, arranged.astype(np.float32), groups=groups)
        scales, zeros = by_channel(self.scales), by_channel(self.zero_points)
        per_channel = scales.size > 1 or len(arranged) == 1
        return FileWeights(self.name, arranged, scales, zeros, per_channel, groups)


def integer_weights(
    name: str, values: np.ndarray, zeros: np.ndarray, scales: np.ndarray
) -> StoredWeights | None:
    """Integers of which a zero point is subtracted, times a scale.

    Args:
        name: Of their constant.
        values: int8 or uint8; of any other type there is no result.
        zeros: Of a shape that spreads over the scales.
        scales: Of a shape that spreads over the values.
    """
    if values.dtype not in (np.int8, np.uint8):
        return None
    zeros = np.broadcast_to(zeros, scales.shape).round().astype(np.int64)
    if values.dtype == np.uint8:
        values, zeros = (values.astype(np.int16) - _HALF).astype(np.int8), zeros - _HALF
    return StoredWeights(name, values, scales, zeros)


def rounded_weights(
    name: str, values: np.ndarray, ends: Sequence[np.ndarray], levels: int
) -> StoredWeights | None:
    """Floats that a ``FakeQuantize`` rounds when the model is compiled.

    Args:
        name: Of their constant.
        values: float32.
        ends: Lowest and highest input, lowest and highest output.
        levels: Integers that there are; more than 256 or fewer than two give no result.
    """
    low, high, new_low, new_high = ends
    steps = levels - 1
    if not 1 <= steps <= 255:
        return None
    counts = np.round((np.clip(values, low, high) - low) / (high - low) * steps)
    scales = (new_high - new_low) / steps
    first = np.round(new_low / scales)  # the integer of the lowest weight
    shift = np.where(first < -_HALF, -_HALF - first, np.where(first >= 0, -_HALF - first, 0))
    integers = np.clip(counts + first + shift, -_HALF, _HALF - 1).astype(np.int8)
    return StoredWeights(name, integers, scales, shift.astype(np.int64))
