"""Make of a simulated model a program with integer weights, as ``torch.export`` saves it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ptqbench.quantization.simulation import (
    DEQUANTIZE,
    QUANTIZE,
    RoundedWeights,
    SimulatedModel,
)

_PER_CHANNEL = torch.ops.quantized_decomposed.dequantize_per_channel.default
_ADDITIONS = (torch.add, torch.Tensor.add, "add", torch.ops.aten.add.Tensor)
_FUNCTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}


def integer_module(simulation: SimulatedModel) -> fx.GraphModule:
    """Return a module that dequantizes integer weights, and computes what a simulation does.

    An output of a layer that is only added to something is not rounded before: Inductor adds
    within the convolution.
    """
    module = copy.deepcopy(simulation.module)
    _call_one_by_one(module)
    _keep_sums_exact(module)
    zeros: dict[int, Tensor] = {}  # shared, so that a file has them once
    for name, rounded in simulation.weights.items():
        path, _, parameter = name.rpartition(".")
        owner = module.get_submodule(path)
        delattr(owner, parameter)
        channels = rounded.integers.shape[rounded.axis]
        owner.register_buffer(parameter, rounded.integers)
        owner.register_buffer(f"{parameter}_scales", rounded.scales.expand(channels).clone())
        zero = zeros.setdefault(channels, torch.zeros(channels, dtype=torch.int64))
        owner.register_buffer(f"{parameter}_zeros", zero)
        _call_with_integers(module, path, name, rounded)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    return module


def _call_one_by_one(module: fx.GraphModule) -> None:
    """Call the layers of a sequence, as fused ones are, each on its own."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_module":
            continue
        sequence = module.get_submodule(str(node.target))
        if not isinstance(sequence, nn.Sequential):
            continue
        value: Any = node.args[0]
        with graph.inserting_before(node):
            for name, _ in sequence.named_children():
                value = graph.call_module(f"{node.target}.{name}", (value,))
        node.replace_all_uses_with(value)
        graph.erase_node(node)


def _call_with_integers(
    module: fx.GraphModule, path: str, name: str, rounded: RoundedWeights
) -> None:
    """Let what read weights read what its integers are dequantized to."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "get_attr" and node.target == name:
            users = [user for user in node.users if user.target is not _PER_CHANNEL]
            with graph.inserting_after(node):
                weight = _dequantized(graph, node, name, rounded)
            for user in users:
                user.replace_input_with(node, weight)
        elif node.op == "call_module" and node.target == path:
            layer: Any = module.get_submodule(path)
            with graph.inserting_before(node):
                weight = _dequantized(graph, graph.get_attr(name), name, rounded)
                bias = None if layer.bias is None else graph.get_attr(f"{path}.bias")
                call = graph.call_function(*_call(layer, node.args[0], weight, bias))
            node.replace_all_uses_with(call)
            graph.erase_node(node)


def _dequantized(graph: fx.Graph, source: fx.Node, name: str, rounded: RoundedWeights) -> fx.Node:
    with graph.inserting_after(source):
        scales = graph.get_attr(f"{name}_scales")
    with graph.inserting_after(scales):
        zeros = graph.get_attr(f"{name}_zeros")
    with graph.inserting_after(zeros):
        arguments = (source, scales, zeros, rounded.axis, -128, 127, torch.int8)
        return graph.call_function(_PER_CHANNEL, arguments)


def _call(layer: Any, x: Any, weight: Any, bias: Any) -> tuple[Callable[..., Tensor], Any, Any]:
    """The function of a layer, with its arguments."""
    if isinstance(layer, nn.Linear):
        return F.linear, (x, weight, bias), {}
    options = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    options["groups"] = layer.groups
    if layer.transposed:
        options["output_padding"] = layer.output_padding
    return _FUNCTIONS[type(layer)], (x, weight, bias), options


def _keep_sums_exact(module: fx.GraphModule) -> None:
    """Add the output of a convolution as it is, where one of the two is only read by the sum."""
    import operator

    layers = {name for name, each in module.named_modules() if type(each) is nn.Conv2d}
    for node in list(module.graph.nodes):
        if node.target not in (*_ADDITIONS, operator.add, operator.iadd) or len(node.args) != 2:
            continue
        order = list(module.graph.nodes)
        candidates = [layer for each in node.args if (layer := _only_added(each, layers))]
        if all(_is(each, DEQUANTIZE) for each in node.args) and candidates:
            last = max(candidates, key=order.index)
            rounded = next(each for each in node.args if _source(each) is last)
            node.replace_input_with(rounded, last)
    module.graph.eliminate_dead_code()


def _only_added(node: Any, layers: set[str]) -> fx.Node | None:
    """The convolution behind an operand that nothing else reads, rounded or not."""
    layer = _source(node)
    if layer is None or layer.op != "call_module" or layer.target not in layers:
        return None
    chain = (node, node.args[0], layer)
    return layer if all(len(each.users) == 1 for each in chain) else None


def _source(node: Any) -> fx.Node | None:
    """What is quantized and dequantized into a value."""
    if not _is(node, DEQUANTIZE) or not _is(node.args[0], QUANTIZE):
        return None
    source = node.args[0].args[0]
    return source if isinstance(source, fx.Node) else None


def _is(node: Any, kind: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is kind
