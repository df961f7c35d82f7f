"""Let convolutions do the zero padding in front of them, which ONNX allows to be uneven."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ptqbench.backends.onnx_format.onnx_graph import constants, readers

if TYPE_CHECKING:
    import onnx

_ROUNDINGS = ("QuantizeLinear", "DequantizeLinear")
_LAST = 2**31 - 1
"""The end of a slice that goes to the end, whatever the size is."""


def merge_padding(model: onnx.ModelProto) -> None:
    """Merge each ``Pad`` into the convolutions that alone read it, in place.

    Rounding in between changes nothing: zero is an integer in every range. As an operator of its
    own, a runtime without an int8 ``Pad`` would pad in float32, with conversions around it.

    Args:
        model: Exported, with constants as initializers.
    """
    graph, values = model.graph, constants(model)
    outputs = {value.name for value in graph.output}
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        reading = readers(graph)
        amounts = _zero_padding(pad, values)
        convolutions = _convolutions_behind(pad.output[0], reading, outputs)
        if amounts is None or not convolutions:
            continue
        if any(_has_text_padding(node) for node in convolutions):
            continue
        for node in convolutions:
            _add_pads(node, amounts)
        for reader in reading[pad.output[0]]:
            for i, name in enumerate(reader.input):
                if name == pad.output[0]:
                    reader.input[i] = pad.input[0]
        graph.node.remove(pad)


def _zero_padding(pad: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> list[int] | None:
    """Amounts at the beginning and the end of rows, columns, …; None if it pads otherwise."""
    from onnx import helper

    mode = next((helper.get_attribute_value(a) for a in pad.attribute if a.name == "mode"), b"")
    if mode not in (b"", b"constant") or len(pad.input) < 2 or pad.input[1] not in values:
        return None
    if len(pad.input) > 2 and pad.input[2]:
        value = values.get(pad.input[2])
        if value is None or value.any():
            return None
    if len(pad.input) > 3 and pad.input[3]:
        return None
    amounts: list[int] = values[pad.input[1]].tolist()
    half = len(amounts) // 2
    begin, end = amounts[:half], amounts[half:]
    if half < 3 or any((*begin[:2], *end[:2])) or min(amounts) < 0:
        return None
    return [*begin[2:], *end[2:]]


def _convolutions_behind(
    value: str, reading: Mapping[str, list[onnx.NodeProto]], outputs: set[str]
) -> list[onnx.NodeProto]:
    """The convolutions that read a value, rounded or not; none if anything else reads it."""
    if value in outputs:
        return []
    convolutions: list[onnx.NodeProto] = []
    for node in reading.get(value, []):
        if node.op_type == "Conv" and node.input[0] == value:
            convolutions.append(node)
            continue
        behind = (
            _convolutions_behind(node.output[0], reading, outputs)
            if node.op_type in _ROUNDINGS and node.input[0] == value
            else []
        )
        if not behind:
            return []
        convolutions += behind
    return convolutions


def _has_text_padding(node: onnx.NodeProto) -> bool:
    from onnx import helper

    return any(
        a.name == "auto_pad" and helper.get_attribute_value(a) not in (b"", b"NOTSET")
        for a in node.attribute
    )


def _add_pads(node: onnx.NodeProto, amounts: list[int]) -> None:
    """Add to what a convolution pads."""
    from onnx import helper

    attribute: Any = next((a for a in node.attribute if a.name == "pads"), None)
    if attribute is None:
        node.attribute.append(helper.make_attribute("pads", amounts))
        return
    total = [before + more for before, more in zip(attribute.ints, amounts, strict=True)]
    del attribute.ints[:]
    attribute.ints.extend(total)


def write_out_wrapping(model: onnx.ModelProto) -> None:
    """Write circular padding as concatenated parts, in place: not every runtime knows it.

    Args:
        model: Exported, with constants as initializers.
    """
    from onnx import helper

    graph, values = model.graph, constants(model)
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        mode = next((helper.get_attribute_value(a) for a in pad.attribute if a.name == "mode"), b"")
        if mode != b"wrap" or pad.input[1] not in values:
            continue
        amounts = values[pad.input[1]].tolist()
        half, value = len(amounts) // 2, pad.input[0]
        nodes: list[onnx.NodeProto] = []
        axes = [axis for axis in range(half) if amounts[axis] or amounts[half + axis]]
        for axis in axes:
            result = pad.output[0] if axis == axes[-1] else f"{pad.output[0]}_{axis}"
            begin, end = amounts[axis], amounts[half + axis]
            bounds = [(-begin, _LAST)] * bool(begin) + [(0, end)] * bool(end)
            parts = [_slice(graph, value, axis, each, result) for each in bounds]
            nodes += parts
            names = [node.output[0] for node in parts]
            names.insert(1 if begin else 0, value)
            nodes.append(helper.make_node("Concat", names, [result], axis=axis))
            value = result
        place = list(graph.node).index(pad)
        graph.node.remove(pad)
        for node in reversed(nodes):
            graph.node.insert(place, node)


def _slice(
    graph: onnx.GraphProto, value: str, axis: int, bounds: tuple[int, int], name: str
) -> onnx.NodeProto:
    """A part of a value along an axis; its bounds are added as constants."""
    from onnx import helper, numpy_helper

    name = f"{name}_{'begin' if bounds[0] < 0 else 'end'}"
    inputs = {"start": bounds[0], "stop": bounds[1], "axis": axis}
    for part, number in inputs.items():
        array = np.array([number], np.int64)
        graph.initializer.append(numpy_helper.from_array(array, f"{name}_{part}"))
    return helper.make_node("Slice", [value, *(f"{name}_{part}" for part in inputs)], [name])
