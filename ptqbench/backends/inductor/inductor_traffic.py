"""Run a lowered program and record what its int8 layers read and write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from ptqbench.backends.graph import Operator
from ptqbench.backends.inductor.inductor_graph import read_lowered
from ptqbench.backends.inductor.inductor_lowering import lower
from ptqbench.backends.inductor.lowered_layers import (
    CONVOLUTIONS,
    INT8_LAYERS,
    adds,
    layer_value,
    named_arguments,
    operator_name,
)
from ptqbench.backends.inductor.pt2_archive import Pt2Archive
from ptqbench.backends.inductor.pt2_program import read_program
from ptqbench.backends.integer_reference import ExactRun, LayerTraffic, QuantizedTensor
from ptqbench.core.phases import INSPECTION, Phases
from ptqbench.core.step_errors import reason_of

_INTEGERS = (torch.uint8, torch.int8)
_STEPS = 255


def record_traffic(path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
    """Run a file and record the inputs and outputs of its int8 layers.

    The lowered graph itself runs, with its own kernels, and returns more than before. A kernel
    that writes float32, or adds another value to its sums, is called once more for that: writing
    float32 without the addition. What it wrote is then rounded to 256 steps.

    Args:
        path: The file.
        images: ``N×C×H×W`` float32; all inputs and outputs are held in memory.
        phases: Where the forward pass is counted.
    """
    lowered = lower(read_program(Pt2Archive(path)))
    graph = read_lowered(lowered)
    layers = {layer.value: layer for layer in graph.int8_layers}
    module = lowered.module
    nodes = [node for node in module.graph.nodes if _is_layer(node, layers)]
    recorded = [value for node in nodes for value in _copies(module.graph, node)]
    (output,) = module.graph.find_nodes(op="output")
    output.args = (tuple(recorded),)
    module.recompile()
    try:
        with torch.inference_mode(), (phases or Phases()).measure(INSPECTION, forward=True):
            values = module(images)
    except RuntimeError as error:
        return ExactRun(graph, (), reason_of(error))
    return ExactRun(
        graph,
        tuple(
            _traffic(layers[layer_value(node)], node, values[2 * place], values[2 * place + 1])
            for place, node in enumerate(nodes)
        ),
    )


def _is_layer(node: fx.Node, layers: Mapping[str, Operator]) -> bool:
    return operator_name(node) in INT8_LAYERS and layer_value(node) in layers


def _copies(graph: fx.Graph, node: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Copies of what a layer reads and writes: a later addition may work in place."""
    clone = torch.ops.aten.clone.default
    with graph.inserting_before(node):
        source = graph.call_function(clone, (node.args[0],))
    with graph.inserting_after(node):
        if _writes_integers(node):
            return source, graph.call_function(clone, (node,))
        with graph.inserting_after(source):
            return source, graph.call_function(*_float_call(node, source))


def _writes_integers(node: fx.Node) -> bool:
    arguments = named_arguments(node)
    return arguments["output_dtype"] in _INTEGERS and not adds(node)


def _float_call(node: fx.Node, source: fx.Node) -> tuple[Any, tuple[Any, ...]]:
    """The kernel of a layer, on the same input, so that it writes float32 and adds nothing."""
    arguments = named_arguments(node)
    shared = [source, *(arguments[name] for name in _OPERANDS), arguments["bias"]]
    tensors = isinstance(arguments["x_scale"], fx.Node)
    overload = "tensor" if tensors else "default"
    fused = not adds(node)
    if operator_name(node) in CONVOLUTIONS:
        geometry = [arguments[name] for name in ("stride", "padding", "dilation", "groups")]
        keys = ("attr", "scalars", "algorithm")
        packet = torch.ops.onednn.qconv_pointwise
    else:
        geometry, keys = [], ("post_op_name", "post_op_args", "post_op_algorithm")
        packet = torch.ops.onednn.qlinear_pointwise
    activation = [arguments[key] for key in keys] if fused else ["none", [], ""]
    return getattr(packet, overload), (*shared, *geometry, 1.0, 0, torch.float32, *activation)


_OPERANDS = ("x_scale", "x_zero_point", "qw", "w_scale", "w_zero_point")


def _traffic(layer: Operator, node: fx.Node, read: Tensor, written: Tensor) -> LayerTraffic:
    arguments = named_arguments(node)
    scale, zero_point = (_number(node, arguments[name]) for name in ("x_scale", "x_zero_point"))
    source = QuantizedTensor(read.contiguous(), float(scale), int(zero_point))
    if _writes_integers(node):
        assert layer.scale is not None and layer.zero_point is not None
        return LayerTraffic(
            layer, source, QuantizedTensor(written.contiguous(), layer.scale, layer.zero_point)
        )
    low, high = min(float(written.min()), 0.0), max(float(written.max()), 0.0)
    step = (high - low) / _STEPS or 1.0
    zero = round(-low / step)
    rounded = ((written.double() / step).round() + zero).clamp(0, _STEPS).to(torch.uint8)
    layer = replace(layer, scale=step, zero_point=zero, lowest=0)
    return LayerTraffic(layer, source, QuantizedTensor(rounded.contiguous(), step, zero))


def _number(node: fx.Node, argument: Any) -> float:
    if isinstance(argument, fx.Node):
        module = node.graph.owning_module
        assert module is not None
        return float(getattr(module, str(argument.target)))
    return float(argument)
