"""Write composite operators of a program as those that Inductor has patterns for, in place.

`ExportedProgram.run_decompositions` does that and more by executing the whole program with
symbolic sizes, which takes many seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from ptqbench.backends.inductor.pt2_program import RANK

_ATEN = torch.ops.aten
_IDENTITIES = ("dropout", "feature_dropout", "alpha_dropout", "detach", "alias", "lift_fresh_copy")


def write_plainly(module: fx.GraphModule) -> None:
    """Replace composite operators and those that work in place.

    Args:
        module: Of ``Program.module``; its nodes know their ranks.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = node.target._schema.name
        if name.startswith("aten::") and name.endswith("_") and not name.endswith("__"):
            _out_of_place(graph, node)
        rewrite = _REWRITES.get(node.target)
        if rewrite is not None:
            with graph.inserting_before(node):
                result = rewrite(graph, node)
            if result is not None:
                result.meta.update(node.meta)
                node.replace_all_uses_with(result)
                graph.erase_node(node)
        elif name.removeprefix("aten::") in _IDENTITIES and not _trains(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    module.recompile()


def _out_of_place(graph: fx.Graph, node: fx.Node) -> None:
    """Let an operator return a new value, which all that follows reads instead of its input."""
    assert isinstance(node.target, torch._ops.OpOverload)
    packet = getattr(_ATEN, str(node.target._schema.name).removeprefix("aten::")[:-1], None)
    overload = getattr(packet, node.target._overloadname, None)
    if overload is None:
        return
    node.target = overload
    earlier = True
    for other in list(graph.nodes):
        if not earlier:
            other.replace_input_with(node.args[0], node)
        earlier = earlier and other is not node


def _trains(node: fx.Node) -> bool:
    """Whether a dropout is active."""
    return len(node.args) > 2 and bool(node.args[2])


def _convolution(dimensions: int) -> Callable[[fx.Graph, fx.Node], fx.Node | None]:
    def rewrite(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
        x, weight, bias, stride, padding, dilation, groups = _arguments(node)
        if isinstance(padding, str):
            return None
        geometry = [_spread(each, dimensions) for each in (stride, padding, dilation)]
        arguments = (x, weight, bias, *geometry, False, [0] * dimensions, groups)
        return graph.call_function(_ATEN.convolution.default, arguments)

    return rewrite


def _spread(value: Any, dimensions: int) -> list[Any]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * dimensions if len(values) == 1 else values


def _arguments(node: fx.Node) -> list[Any]:
    """All arguments of a call in the order of its schema, defaults included."""
    assert isinstance(node.target, torch._ops.OpOverload)
    values = list(node.args)
    for argument in node.target._schema.arguments[len(values) :]:
        values.append(node.kwargs.get(argument.name, argument.default_value))
    return values


def _linear(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """A product with the transposed weights, of rows."""
    x, weight, bias = _arguments(node)
    rank = x.meta.get(RANK, 0) if isinstance(x, fx.Node) else 0
    if rank < 2:
        return None
    rows = x
    if rank > 2:
        features = graph.call_function(_ATEN.sym_size.int, (x, rank - 1))
        rows = graph.call_function(_ATEN.reshape.default, (x, [-1, features]))
    transposed = graph.call_function(_ATEN.permute.default, (weight, [1, 0]))
    if bias is None:
        product = graph.call_function(_ATEN.mm.default, (rows, transposed))
    else:
        product = graph.call_function(_ATEN.addmm.default, (bias, rows, transposed))
    if rank == 2:
        return product
    sizes = [graph.call_function(_ATEN.sym_size.int, (x, place)) for place in range(rank - 1)]
    return graph.call_function(_ATEN.reshape.default, (product, [*sizes, -1]))


def _transposition(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    return graph.call_function(_ATEN.permute.default, (node.args[0], [1, 0]))


def _relu6(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    return graph.call_function(_ATEN.hardtanh.default, (node.args[0], 0.0, 6.0))


_REWRITES: Mapping[Any, Callable[[fx.Graph, fx.Node], fx.Node | None]] = {
    _ATEN.conv1d.default: _convolution(1),
    _ATEN.conv2d.default: _convolution(2),
    _ATEN.conv3d.default: _convolution(3),
    _ATEN.linear.default: _linear,
    _ATEN.t.default: _transposition,
    _ATEN.relu6.default: _relu6,
}
