"""Put the body of ``with`` statements back into the graph around it.

``torch.export`` keeps what is computed without automatic casts or gradients in a graph of its own.
"""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Graph, GraphModule, Node

_AUTOCAST, _GRADIENTS = "wrap_with_autocast", "wrap_with_set_grad_enabled"
_ENABLED = 2
"""Position of the argument that says whether casts are on."""


def inline(module: GraphModule) -> Graph:
    """Inline the graphs that a captured module calls where they compute the same outside.

    Args:
        module: Captured; it is changed.

    Returns:
        Its graph.
    """
    pending = True
    while pending:
        pending = False
        for node in list(module.graph.nodes):
            if _is_inlinable(node):
                _inline(module, node)
                pending = True
    module.graph.eliminate_dead_code()
    return module.graph


def _is_inlinable(node: Node) -> bool:
    name = getattr(node.target, "__name__", "")
    casts = name == _AUTOCAST and bool(node.args[_ENABLED])
    return node.op == "call_function" and name in (_AUTOCAST, _GRADIENTS) and not casts


def _inline(module: GraphModule, call: Node) -> None:
    position = next(
        index
        for index, argument in enumerate(call.args)
        if isinstance(argument, Node) and argument.op == "get_attr"
    )
    reference: Any = call.args[position]
    body = module.get_submodule(str(reference.target))
    assert isinstance(body, GraphModule)
    inputs = [node for node in body.graph.nodes if node.op == "placeholder"]
    values: dict[Node, Any] = dict(zip(inputs, call.args[position + 1 :], strict=True))
    with module.graph.inserting_before(call):
        outputs: Any = module.graph.graph_copy(body.graph, values)
    for user in list(call.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(outputs[user.args[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(call)
