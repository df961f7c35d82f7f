"""Write means over whole maps as XNNPACK executes them."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

_MEANS = ("mean", torch.mean, torch.ops.aten.mean.dim)
_FLATTEN, _MEAN = torch.ops.aten.flatten.using_ints, torch.ops.aten.mean.dim
_MAP = {2, 3}


def keep_pooled(module: GraphModule) -> None:
    """Let means over maps keep their two dimensions, and flatten them afterwards, in place.

    XNNPACK has no other mean.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.op not in ("call_function", "call_method") or node.target not in _MEANS:
            continue
        dimensions, keeps, dtype = _arguments(node)
        if keeps or dtype is not None or _rank(node, dimensions) != 4:
            continue
        with graph.inserting_before(node):
            mean = graph.call_function(_MEAN, (node.args[0], [2, 3], True))
            flat = graph.call_function(_FLATTEN, (mean, 1))
        mean.meta.update({k: v for k, v in node.meta.items() if k != "val"})
        flat.meta.update(node.meta)
        node.replace_all_uses_with(flat)
        graph.erase_node(node)
    module.recompile()


def _arguments(node: Node) -> tuple[Any, bool, Any]:
    """Dimensions, whether they are kept, and the type that is computed in."""
    names = ("dim", "keepdim", "dtype")
    values = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    return values.get("dim"), bool(values.get("keepdim", False)), values.get("dtype")


def _rank(node: Node, dimensions: Any) -> int:
    """Number of dimensions of what is averaged, if it is rows and columns; else 0.

    Only ``N×C×H×W`` has dimensions 2 and 3 as its last two.
    """
    if not isinstance(dimensions, list | tuple) or len(dimensions) != 2:
        return 0
    value = node.args[0].meta.get("val") if isinstance(node.args[0], Node) else None
    if value is not None:
        return value.dim() if {each % value.dim() for each in dimensions} == _MAP else 0
    return 4 if set(dimensions) == _MAP else 0
