"""What OpenVINO really executes: its runtime model of a file, as a neutral graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptqbench.backends.graph import Graph, Operator, Role
from ptqbench.backends.openvino.ov_layers import FileLayer, is_relu6, read_layers
from ptqbench.backends.openvino.ov_ranges import Rounding, rounding
from ptqbench.backends.openvino.ov_session import compile_model, read_model

LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "GroupConvolution")
CONVERSIONS = ("FakeQuantize", "Convert", "Reorder", "Quantize")
"""Kinds of executed operators that change types and layouts of values."""
_INTEGERS = ("u8", "i8")
_SILENT = ("FakeQuantize", "Convert", "Subtract", "Multiply", "Reshape", "Constant")
"""What a file has around an activation that is executed on its own."""


@dataclass(frozen=True)
class _File:
    """What the file says of its operators, by name."""

    layers: Mapping[str, FileLayer]
    roundings: Mapping[str, Rounding]
    kinds: Mapping[str, str]


def executed_graph(path: Path) -> Graph:
    """Read what OpenVINO makes of a file on this machine.

    Args:
        path: A file that can be trusted, or was tried out in another process.
    """
    return read_executed(read_model(path)).graph


@dataclass(frozen=True)
class Executed:
    """What is executed of a file.

    Attributes:
        graph: All operators.
        layers: As the file has them, by the value of the operator that executes each.
    """

    graph: Graph
    layers: Mapping[str, FileLayer]


def read_executed(model: Any) -> Executed:
    """Compile a model as it was read, and read what is executed."""
    layers = {name: layer for layer in read_layers(model) for name in layer.names}
    file = _File(layers, _roundings(model), _kinds(model))
    executed = compile_model(model, 1).get_runtime_model()
    operators: list[Operator] = []
    values: set[str] = set()
    sources: dict[str, FileLayer] = {}
    for node in executed.get_ordered_ops():
        producers = (place.get_source_output().get_node() for place in node.inputs())
        inputs = tuple(name for each in producers if (name := each.get_friendly_name()) in values)
        # What reads constants alone is computed once, when the model is compiled.
        if not inputs and _fact(node, "layerType") != "Input":
            continue
        value = node.get_friendly_name()
        values.add(value)
        names = [_plain(name) for name in _fact(node, "originalLayersNames").split(",")]
        layer = next((layers[name] for name in names if name in layers), None)
        if layer is not None and _fact(node, "layerType") in LAYERS:
            sources[value] = layer
            operators.append(_layer(node, inputs, layer))
        else:
            operators.append(_other(node, inputs, names, file))
    return Executed(Graph(tuple(operators)), sources)


def _shared(node: Any, inputs: tuple[str, ...]) -> dict[str, Any]:
    return {
        "kind": _fact(node, "layerType"),
        "value": node.get_friendly_name(),
        "inputs": inputs,
        "kernel": _fact(node, "primitiveType"),
        "precision": _fact(node, "runtimePrecision"),
    }


def _layer(node: Any, inputs: tuple[str, ...], layer: FileLayer) -> Operator:
    shared = _shared(node, inputs) | {"path": layer.path, "activation": layer.activation}
    kernel, precision = shared["kernel"], shared["precision"]
    is_int8 = precision in _INTEGERS and kernel.lower().endswith("_i8")
    if is_int8 and layer.integers is not None:
        output = {} if layer.output is None else _described(layer.output)
        return Operator(role=Role.INT8_LAYER, integers=layer.integers, **shared, **output)
    return Operator(role=Role.FLOAT_LAYER, weight=layer.weight, bias=layer.bias, **shared)


def _other(node: Any, inputs: tuple[str, ...], names: list[str], file: _File) -> Operator:
    shared = _shared(node, inputs)
    return Operator(role=_role(shared["kind"], names, file), **shared, **_range(names, file))


def _role(kind: str, names: Iterable[str], file: _File) -> Role:
    """What an operator is that is no layer."""
    if kind in CONVERSIONS:
        return Role.CONVERSION
    kinds = [file.kinds[name] for name in names if name in file.kinds]
    rest = [each for each in kinds if each not in _SILENT]
    if kinds and not rest:
        return Role.CONVERSION if "FakeQuantize" in kinds else Role.OTHER
    if len(rest) == 1:
        return {"Relu": Role.RELU, "ReLU6": Role.RELU6}.get(rest[0], Role.OTHER)
    return Role.OTHER


def _range(names: Iterable[str], file: _File) -> dict[str, Any]:
    """The range of the last rounding among operators that are executed as one."""
    last = [file.roundings[name] for name in names if name in file.roundings][-1:]
    return _described(last[0]) if last else {}


def _described(rounded: Rounding) -> dict[str, Any]:
    value = rounded.range
    lowest = int(np.iinfo(value.kind).min)
    return {"scale": value.scale, "zero_point": value.zero_point, "lowest": lowest}


def _roundings(model: Any) -> dict[str, Rounding]:
    roundings = (rounding(node) for node in model.get_ordered_ops())
    return {name: each for each in roundings if each is not None for name in each.names}


def _kinds(model: Any) -> dict[str, str]:
    return {
        node.get_friendly_name(): "ReLU6" if is_relu6(node) else node.get_type_name()
        for node in model.get_ordered_ops()
    }


def _plain(name: str) -> str:
    """The name that an operator has in the file: low-precision transformations append to it."""
    return name.partition("/Dequantization")[0].removesuffix("_original")


def _fact(node: Any, name: str) -> str:
    """What the runtime says of an operator."""
    facts = node.get_rt_info()
    return str(facts[name].astype(str)) if name in facts else ""
