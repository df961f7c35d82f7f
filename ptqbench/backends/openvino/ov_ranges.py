"""How a graph of OpenVINO rounds activations: ``FakeQuantize``, and what follows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptqbench.backends.openvino.ov_constants import constant, only_reader, readers, scalar, source

_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool")
"""Operators whose outputs are some of their inputs."""
_INTEGERS = {"u8": np.dtype(np.uint8), "i8": np.dtype(np.int8)}


@dataclass(frozen=True)
class Range:
    """Integers that a value is rounded to, one scale for all of it.

    Attributes:
        scale: Of one step.
        zero_point: The integer that means zero.
        kind: uint8 or int8; a value that is rounded but stays float counts as uint8.
    """

    scale: float
    zero_point: int
    kind: np.dtype[Any]

    def integers(self, values: np.ndarray) -> np.ndarray:
        """What values stand for; integers are taken as they are."""
        if values.dtype == self.kind:
            return values
        limits = np.iinfo(self.kind)
        steps = np.round(values.astype(np.float64) / self.scale) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.kind)


@dataclass(frozen=True)
class Rounding:
    """A ``FakeQuantize`` of activations.

    Attributes:
        names: Of the operators that round, one of which a compiled model names.
        output: Its value in the graph: integers, or floats that are multiples of the scale.
        range: What it rounds to.
        dequantized: The operators that make floats of integers again, if it writes integers.
    """

    names: tuple[str, ...]
    output: Any
    range: Range
    dequantized: tuple[Any, ...] = ()


def rounding(node: Any) -> Rounding | None:
    """Read a ``FakeQuantize``; None if a node is none, or rounds to many ranges.

    ONNX models have one from 0 to 255 or −128 to 127, conversions to integers and back, and a
    multiplication; other tools write one whose ends are the range.
    """
    if node is None or node.get_type_name() != "FakeQuantize":
        return None
    following = only_reader(node)
    if following is not None and following.get_type_name() == "Convert":
        floats = [_floats(reader.get_node()) for reader in readers(following)]
        ranges = {None if each is None else _dequantized(each) for each in floats}
        value = ranges.pop() if len(ranges) == 1 else None
        if value is None:
            return None
        names = (node.get_friendly_name(), following.get_friendly_name())
        return Rounding(names, following.output(0), value, tuple(floats))
    ends = [scalar(source(node, place)) for place in (3, 4)]
    low, high = ends
    steps = int(node.get_attributes()["levels"]) - 1
    if low is None or high is None or high <= low or steps > np.iinfo(np.uint8).max:
        return None
    scale = (high - low) / steps
    value = Range(scale, round(-low / scale), np.dtype(np.uint8))
    return Rounding((node.get_friendly_name(),), node.output(0), value)


def _floats(node: Any) -> Any:
    """The operator that makes floats of integers, from the conversion that it begins with."""
    if node.get_type_name() != "Convert":
        return None
    following = only_reader(node)
    if following is not None and following.get_type_name() == "Subtract":
        following = only_reader(following)
    return following


def source_range(layer: Any) -> Range | None:
    """What the first input of a layer was rounded to; None if it was not."""
    node = source(layer, 0)
    while node.get_type_name() in _MOVES:
        node = source(node, 0)
    if node.get_type_name() == "FakeQuantize":
        rounded = rounding(node)
        return None if rounded is None else rounded.range
    return _dequantized(node)


def _dequantized(node: Any) -> Range | None:
    """The range of integers that a multiplication makes floats of."""
    scale = scalar(source(node, 1)) if node.get_type_name() == "Multiply" else None
    if scale is None:
        return None
    centred, zero_point = source(node, 0), 0.0
    if centred.get_type_name() == "Subtract":
        zero = scalar(source(centred, 1))
        if zero is None:
            return None
        centred, zero_point = source(centred, 0), zero
    if centred.get_type_name() != "Convert" or constant(centred) is not None:
        return None
    kind = _INTEGERS.get(source(centred, 0).get_element_type().get_type_name())
    return None if kind is None else Range(scale, round(zero_point), kind)
