"""Export a module to a program of ExecuTorch, with the integers of a simulated quantization."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import export
from torch.fx import GraphModule, Node
from torch.nn import functional as F

from ptqbench.backends.executorch.et_import import exporter
from ptqbench.backends.executorch.pooling import keep_pooled
from ptqbench.quantization.simulation import DEQUANTIZE, QUANTIZE, RoundedWeights

_SHIFT = 128
"""What separates u8 from s8, of which XNNPACK alone has kernels."""
_LOWEST, _HIGHEST = -127, 127
_PER_CHANNEL = torch.ops.quantized_decomposed.dequantize_per_channel.default
_FUNCTIONS: Mapping[type[nn.Module], Any] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
    nn.Linear: F.linear,
}
_MOVES = ("flatten", "view", "reshape", "squeeze", "unsqueeze", "permute", "transpose")


def export_program(module: nn.Module, example: Tensor) -> bytes:
    """Export a module for images of one shape, executed by XNNPACK as far as it can.

    Args:
        module: Float32 in evaluation mode, or from `with_integers`.
        example: One input, ``1×C×H×W`` float32.

    Raises:
        Exception: Whatever torch or ExecuTorch raises for a module that it cannot export.
    """
    with exporter(), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

        program = export(module.eval(), (example,))
        keep_pooled(program.graph_module)
        lowered = to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()],
            # It refuses operators that the runtime has, among them those that round.
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        return bytes(lowered.to_executorch().buffer)


def with_integers(simulated: GraphModule, weights: Mapping[str, RoundedWeights]) -> GraphModule:
    """Write a simulated quantization as ExecuTorch's own quantizer does.

    Activations are s8 instead of u8, which are the same steps; weights are integers that are
    dequantized; and every reader of a rounded activation dequantizes it on its own, by which the
    partitioner recognizes operators that can be executed in int8.

    Args:
        simulated: Plain layers that round; it is not changed.
        weights: Of its int8 layers, by the path of their parameter.
    """
    module = copy.deepcopy(simulated)
    for node in list(module.graph.nodes):
        _call_parts(module, node)
    for node in list(module.graph.nodes):
        if node.op == "call_module":
            _call_function(module, node, weights)
        elif node.op == "get_attr" and str(node.target) in weights:
            _replace(node, _dequantized(module, node, str(node.target), weights))
    keep_pooled(module)
    for node in list(module.graph.nodes):
        if node.target in (QUANTIZE, DEQUANTIZE):
            _to_signed(node)
        if node.target is QUANTIZE:
            _round_before_moves(node)
    for node in list(module.graph.nodes):
        if node.target is DEQUANTIZE:
            _one_reader_each(node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def _call_parts(module: GraphModule, node: Node) -> None:
    """Let a layer that is fused with its activation be two calls, in place."""
    if node.op != "call_module" or not isinstance(
        sequence := module.get_submodule(str(node.target)), nn.Sequential
    ):
        return
    value = node.args[0]
    with module.graph.inserting_before(node):
        for name, _ in sequence.named_children():
            value = module.graph.call_module(f"{node.target}.{name}", (value,))
    assert isinstance(value, Node)
    _replace(node, value)


def _call_function(module: GraphModule, node: Node, weights: Mapping[str, RoundedWeights]) -> None:
    """Let a layer with integer weights be a call of its function, in place."""
    path = str(node.target)
    name = f"{path}.weight"
    if name not in weights:
        return
    layer: Any = module.get_submodule(path)
    graph = module.graph
    with graph.inserting_before(node):
        bias = None
        if layer.bias is not None:
            bias = graph.get_attr(_stored_name(module, f"{path}.bias", layer.bias.detach()))
        arguments = (node.args[0], _dequantized(module, node, name, weights), bias)
        if isinstance(layer, nn.Linear):
            call = graph.call_function(F.linear, arguments)
        else:
            options = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
            options["dilation"] = layer.dilation
            if layer.transposed:
                options["output_padding"] = layer.output_padding
            call = graph.call_function(_FUNCTIONS[type(layer)], arguments, options)
    _replace(node, call)


def _replace(node: Node, other: Node) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def _dequantized(
    module: GraphModule, before: Node, name: str, weights: Mapping[str, RoundedWeights]
) -> Node:
    """Put the dequantization of integer weights in front of a node."""
    rounded = weights[name]
    count = rounded.integers.shape[rounded.axis]
    values = {
        "integers": rounded.integers,
        "scales": rounded.scales.expand(count).contiguous(),
        "zeros": torch.zeros(count, dtype=torch.int64),
    }
    graph = module.graph
    with graph.inserting_before(before):
        nodes = [graph.get_attr(_stored_name(module, f"{name}.{k}", v)) for k, v in values.items()]
        arguments = (*nodes, rounded.axis, _LOWEST, _HIGHEST, torch.int8)
        return graph.call_function(_PER_CHANNEL, arguments)  # type: ignore[arg-type]


def _stored_name(module: GraphModule, name: str, value: Tensor) -> str:
    """Keep a tensor in the module, and return its name there."""
    name = name.replace(".", "_")
    if name not in dict(module.named_buffers(recurse=False)):
        module.register_buffer(name, value.clone().contiguous())
    return name


def _to_signed(node: Node) -> None:
    """Let an operator round to s8, in place."""
    value, scale, zero_point, low, high, dtype = node.args
    if dtype is torch.uint8:
        bounds = [int(each) - _SHIFT for each in (zero_point, low, high)]  # type: ignore[arg-type]
        node.args = (value, scale, *bounds, torch.int8)


def _round_before_moves(node: Node) -> None:
    """Round what an operator computes before it is flattened, as well as afterwards, in place.

    XNNPACK executes an operator in int8 if its output is rounded at once. Rounding in the same way
    twice changes nothing.
    """
    source: Any = node.args[0]
    move = node
    while _moves(source) and len(source.users) == 1:
        move, source = source, source.args[0]
    is_rounded = getattr(source, "target", None) is DEQUANTIZE
    if move is node or not isinstance(source, Node) or is_rounded or source.op == "placeholder":
        return
    graph = node.graph
    with graph.inserting_before(move):
        rounded = graph.call_function(QUANTIZE, (source, *node.args[1:]))
        values = graph.call_function(DEQUANTIZE, (rounded, *node.args[1:]))
    move.replace_input_with(source, values)


def _moves(node: Any) -> bool:
    """Whether a node only moves values."""
    if not isinstance(node, Node) or node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return str(name).partition(".")[0] in _MOVES


def _one_reader_each(node: Node) -> None:
    """Copy a dequantization for every reader but the first, in place."""
    for reader in list(node.users)[1:]:
        with node.graph.inserting_after(node):
            other = node.graph.node_copy(node)
        reader.replace_input_with(node, other)
