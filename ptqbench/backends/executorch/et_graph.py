"""What ExecuTorch executes of a file, as a neutral graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptqbench.backends.executorch.et_layers import XnnLayer, clamp, read_layer
from ptqbench.backends.executorch.et_program import XNNPACK, Call, Program, read_program
from ptqbench.backends.executorch.xnnpack_graph import (
    LAYERS,
    NOTHING,
    XnnGraph,
    XnnNode,
    read_graph,
)
from ptqbench.backends.graph import Graph, Operator, Role

PORTABLE = "portable"
"""Kernel of operators that no delegate executes."""
UNDELEGATED = (
    "XNNPACK does not execute it, but ExecuTorch's portable operators do, in float32: lower the "
    "file with XnnpackPartitioner, and quantize the output of the layer as well"
)
_FLOAT_LAYERS = {"aten::convolution": 1, "aten::linear": 1, "aten::addmm": 2, "aten::mm": 1}
"""Where operators have their weights among their inputs."""
_PORTABLE_ROLES = {
    "aten::relu": Role.RELU,
    "aten::hardtanh": Role.RELU6,
    "aten::_native_batch_norm_legit_no_training": Role.BATCH_NORM,
    "quantized_decomposed::quantize_per_tensor": Role.CONVERSION,
    "quantized_decomposed::dequantize_per_tensor": Role.CONVERSION,
    "quantized_decomposed::dequantize_per_channel": Role.CONVERSION,
    "aten::permute_copy": Role.CONVERSION,
    "dim_order_ops::_to_dim_order_copy": Role.CONVERSION,
}
_MOVES = ("Convert", "StaticTranspose", "Copy")
_QINT8 = "qint8"


@dataclass(frozen=True)
class Executed:
    """What is executed of a file.

    Attributes:
        graph: All operators.
        layers: Of XNNPACK, by the value that they write.
        places: Number of the delegate and of its nodes' input and output, likewise.
        sources: Scale and zero point of what they read, likewise.
    """

    graph: Graph
    layers: Mapping[str, XnnLayer]
    places: Mapping[str, tuple[int, int, int]]
    sources: Mapping[str, tuple[float, int]]


def executed_graph(path: Path) -> Graph:
    """Read what is executed of a file."""
    return read_executed(read_program(path.read_bytes())).graph


def read_executed(program: Program) -> Executed:
    """Read what is executed of a program, its instructions one by one."""
    operators: list[Operator] = []
    layers: dict[str, XnnLayer] = {}
    places: dict[str, tuple[int, int, int]] = {}
    sources: dict[str, tuple[float, int]] = {}
    producers: dict[int, Call] = {}
    for call in program.calls:
        if call.delegate < 0:
            operators.append(_portable(program, call, producers))
            producers[call.arguments[-1]] = call
            continue
        delegate = program.delegates[call.delegate]
        if delegate.name != XNNPACK:
            continue
        graph = read_graph(delegate.payload, program.data)
        for node in graph.nodes:
            operator, layer = _delegated(graph, node, call)
            operators.append(operator)
            if layer is not None and operator.is_int8_layer:
                source = graph.values[node.inputs[0]]
                layers[operator.value] = layer
                places[operator.value] = (call.delegate, node.inputs[0], node.output)
                sources[operator.value] = (float(source.scales[0]), source.zero_point)
    return Executed(Graph(tuple(operators)), layers, places, sources)


def _delegated(graph: XnnGraph, node: XnnNode, call: Call) -> tuple[Operator, XnnLayer | None]:
    """An operator of XNNPACK, and the layer that it is."""

    def name(number: int) -> str:
        external = graph.values[number].external
        if external != NOTHING and external < len(call.arguments):
            return f"v{call.arguments[external]}"
        return f"d{call.delegate}:{number}"

    output = graph.values[node.output]
    is_int8 = output.datatype == _QINT8
    shared: dict[str, Any] = {
        "kind": node.kind,
        "value": name(node.output),
        "inputs": tuple(name(i) for i in node.inputs if graph.values[i].constant is None),
        "scale": float(output.scales[0]) if is_int8 and output.scales.size else None,
        "zero_point": output.zero_point if is_int8 and output.scales.size else None,
        "lowest": -128 if is_int8 else 0,
        "kernel": "XNNPACK",
        "precision": "int8" if is_int8 else "float32",
    }
    if node.kind not in LAYERS or len(node.inputs) < 2:
        return Operator(role=_role(node), **shared), None
    layer = read_layer(graph, node)
    shared |= {"activation": layer.activation}
    if layer.integers is not None:
        return Operator(role=Role.INT8_LAYER, integers=layer.integers, **shared), layer
    if _is_batch_norm(node, layer.weight):
        assert layer.weight is not None
        return Operator(role=Role.BATCH_NORM, weight=layer.weight.flatten(), **shared), layer
    if layer.weight is None:
        return Operator(role=Role.OTHER, **shared), None
    floats: dict[str, Any] = {
        "weight": layer.weight,
        "bias": layer.bias,
        "obstacle": layer.obstacle,
    }
    return Operator(role=Role.FLOAT_LAYER, **floats, **shared), layer


def _is_batch_norm(node: XnnNode, weight: Tensor | None) -> bool:
    """Whether a depthwise convolution is what the exporter writes for a BatchNorm."""
    if node.kind != "DepthwiseConv2d" or weight is None or node.geometry is None:
        return False
    return weight.numel() == len(weight) == node.geometry["groups"]


def _role(node: XnnNode) -> Role:
    if node.kind in _MOVES:
        return Role.CONVERSION
    if node.kind == "Clamp":
        return {"relu": Role.RELU, "relu6": Role.RELU6}.get(clamp(node), Role.OTHER)
    return Role.OTHER


def _portable(program: Program, call: Call, producers: Mapping[int, Call]) -> Operator:
    """An operator that no delegate executes."""
    kind = call.operator.rpartition(".")[0] or call.operator
    output = call.arguments[-1]
    tensors = [
        number
        for number in dict.fromkeys(call.arguments)
        if number != output and program.values[number].kind == "tensor"
    ]
    shared: dict[str, Any] = {
        "kind": kind,
        "value": f"v{output}",
        "inputs": tuple(f"v{i}" for i in tensors if program.values[i].constant is None),
        "kernel": PORTABLE,
        "precision": "float32",
    }
    place = _FLOAT_LAYERS.get(kind)
    if place is not None and place < len(call.arguments):
        weight = _weight(program, call.arguments[place], producers, swap=kind.endswith("mm"))
        if weight is not None:
            role, obstacle = Role.FLOAT_LAYER, UNDELEGATED
            return Operator(role=role, weight=weight, obstacle=obstacle, **shared)
    return Operator(role=_PORTABLE_ROLES.get(kind, Role.OTHER), **shared)


def _weight(
    program: Program, number: int, producers: Mapping[int, Call], *, swap: bool
) -> Tensor | None:
    """Weights of an operator; integers are as good, for their directions are those of the weights.

    Transposed and dequantized weights are looked for in what computes them.
    """
    value = program.values[number]
    for _ in range(3):
        if value.constant is not None:
            break
        call = producers.get(number)
        if call is None:
            return None
        swap ^= "permute" in call.operator or "transpose" in call.operator
        number = call.arguments[0]
        value = program.values[number]
    if value.constant is None:
        return None
    floats = torch.from_numpy(np.array(value.constant, np.float32))
    return floats.t().contiguous() if swap and floats.dim() == 2 else floats
