"""Simplify graphs that OpenVINO reads from ONNX models, before they are written as IR files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptqbench.backends.openvino.ov_constants import constant, readers, scalar, source
from ptqbench.backends.openvino.ov_import import import_openvino
from ptqbench.backends.openvino.ov_ranges import Rounding, rounding


@dataclass(frozen=True)
class _Weights:
    """Integer weights, taken out of a graph.

    Attributes:
        parameter: What stands in the graph instead.
        integers: int8.
        scales: float32, of a shape that spreads over the integers.
        names: Of the integers and of the weights that are computed from them.
    """

    parameter: Any
    integers: np.ndarray
    scales: np.ndarray
    names: tuple[str, str]


def simplify(model: Any) -> Any:
    """Fold what is constant, but for integer weights, in place.

    Converted from ONNX, every bias takes a dozen operators that compute shapes at run time, and
    every weight has a zero point that is zero. Folding would make floats of integer weights, so
    these are taken out meanwhile.
    """
    import_openvino()
    from openvino import passes

    weights = _taken_out(model)
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    for each in weights:
        _put_back(model, each)
    _drop_idle(model)
    _join_roundings(model)
    model.validate_nodes_and_infer_types()
    return model


def _taken_out(model: Any) -> list[_Weights]:
    from openvino import opset13

    weights = []
    for node in model.get_ordered_ops():
        integers, scales = _dequantized(node)
        if integers is None or scales is None:
            continue
        parameter = opset13.parameter(list(node.get_output_shape(0)), np.float32)
        for target in readers(node):
            target.replace_source_output(parameter.output(0))
        names = (integers.get_friendly_name(), node.get_friendly_name())
        weights.append(_Weights(parameter, np.array(integers.data), scales, names))
    model.add_parameters([each.parameter for each in weights])
    return weights


def _dequantized(node: Any) -> tuple[Any, np.ndarray | None]:
    """The node of the integers and the scales of weights; None twice if a node is none.

    The zero point of weights that ptqbench writes is zero.
    """
    if node.get_type_name() != "Multiply":
        return None, None
    centred, scales = source(node, 0), constant(source(node, 1))
    if centred.get_type_name() == "Subtract":
        zeros = constant(source(centred, 1))
        if zeros is None or zeros.any():
            return None, None
        centred = source(centred, 0)
    if centred.get_type_name() != "Convert":
        return None, None
    integers = source(centred, 0)
    is_int8 = integers.get_type_name() == "Constant" and integers.data.dtype == np.int8
    return (integers, scales) if is_int8 else (None, None)


def _put_back(model: Any, weights: _Weights) -> None:
    from openvino import opset13

    integers = opset13.constant(weights.integers)
    scales = opset13.constant(np.ascontiguousarray(weights.scales, np.float32))
    floats = opset13.multiply(opset13.convert(integers, np.float32), scales)
    for node, name in zip((integers, floats), weights.names, strict=True):
        node.set_friendly_name(name)
    for target in readers(weights.parameter):
        target.replace_source_output(floats.output(0))
    model.remove_parameter(weights.parameter)


def _join_roundings(model: Any) -> None:
    """Write each quantization and dequantization of an activation as one ``FakeQuantize``.

    It is what OpenVINO's own quantizer writes, and takes a fifth of the text. What is only averaged
    is left as it is: joined, OpenVINO 2026.4 computes the mean less exactly, which costs
    mobilenet_v3_large 4.5 dB.
    """
    from openvino import opset13

    numbers: dict[float, Any] = {}

    def number(value: float) -> Any:
        return numbers.setdefault(value, opset13.constant(np.float32(value)))

    for node in model.get_ordered_ops():
        rounded = rounding(node)
        if rounded is None or not rounded.dequantized or _is_averaged(rounded):
            continue
        limits, zero_point = np.iinfo(rounded.range.kind), rounded.range.zero_point
        ends = [
            number(float(np.float32((end - zero_point) * rounded.range.scale)))
            for end in (limits.min, limits.max)
        ]
        joined = opset13.fake_quantize(
            node.input_value(0), *ends, *ends, limits.max - limits.min + 1
        )
        joined.set_friendly_name(rounded.names[-1])
        for floats in rounded.dequantized:
            for target in readers(floats):
                target.replace_source_output(joined.output(0))


def _is_averaged(rounded: Rounding) -> bool:
    """Whether a mean is all that reads a rounding."""
    kinds = {
        target.get_node().get_type_name()
        for floats in rounded.dequantized
        for target in readers(floats)
    }
    return kinds == {"ReduceMean"}


def _drop_idle(model: Any) -> None:
    """Leave out what changes nothing: copies, and the factor 1 of linear layers."""
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Identity" or (kind == "Multiply" and scalar(source(node, 1)) == 1.0):
            for target in readers(node):
                target.replace_source_output(node.input_value(0))
