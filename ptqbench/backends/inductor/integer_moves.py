"""Let operators that only move values move integers, in place.

Between ``dequantize`` and ``quantize`` of one range, pooling, concatenating and reshaping give the
same integers when they are applied to them. Inductor's compiler does so, too; without it such
operators would run in float32 between two conversions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ptqbench.quantization.simulation import DEQUANTIZE, QUANTIZE

_ATEN = torch.ops.aten
_MOVES = (
    *(_ATEN.max_pool2d.default, _ATEN.flatten.using_ints, _ATEN.reshape.default),
    *(_ATEN.view.default, _ATEN.permute.default, _ATEN.transpose.int, _ATEN.unsqueeze.default),
    *(_ATEN.squeeze.dim, _ATEN.squeeze.dims, _ATEN.contiguous.default, _ATEN.clone.default),
    *(_ATEN.slice.Tensor, _ATEN.channel_shuffle.default, _ATEN.pixel_shuffle.default),
)
_CAT = _ATEN.cat.default
_POOLING = _ATEN.max_pool2d.default


def move_integers(graph: fx.Graph) -> None:
    """Move integers wherever the ranges before and after a move are the same."""
    for node in list(graph.nodes):
        if node.op != "call_function" or (node.target not in _MOVES and node.target is not _CAT):
            continue
        sources = list(node.args[0]) if node.target is _CAT else [node.args[0]]
        ranges = {_range(each, DEQUANTIZE) for each in sources}
        ranges |= {_range(each, QUANTIZE) for each in node.users}
        if len(ranges) != 1 or None in ranges:
            continue
        integers = [source.args[0] for source in sources]
        with graph.inserting_before(node):
            arguments = (integers if node.target is _CAT else integers[0], *node.args[1:])
            moved = graph.call_function(node.target, arguments, dict(node.kwargs))
        for quantize in list(node.users):
            quantize.replace_all_uses_with(moved)
            graph.erase_node(quantize)
    graph.eliminate_dead_code()


def _range(node: Any, kind: Any) -> tuple[Any, ...] | None:
    """What a conversion of a kind takes for an integer; None if it is no such conversion."""
    if not isinstance(node, fx.Node) or node.target is not kind or len(node.args) != 6:
        return None
    return node.args[1:] if kind is DEQUANTIZE or not node.kwargs else None


def pool_integers(graph: fx.Graph) -> None:
    """Call the kernel that pools integers: that for floats takes many times as long on them.

    Args:
        graph: Whose nodes know their values, as fake tensors.
    """
    for node in graph.find_nodes(op="call_function", target=_POOLING):
        value = node.args[0].meta.get("val")
        if value is None or value.dtype is not torch.uint8 or value.dim() != 4:
            continue
        kernel, stride, padding, dilation, ceil = _geometry(*node.args[1:], **node.kwargs)
        node.target = torch.ops.quantized.max_pool2d.default
        node.args = (node.args[0], kernel, stride or kernel, padding, dilation, ceil)
        node.kwargs = {}


def _geometry(
    kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[list[int], list[int], list[int], list[int], bool]:
    pairs = (
        [each, each] if isinstance(each, int) else list(each) * (2 if len(each) == 1 else 1)
        for each in (kernel_size, stride, padding, dilation)
    )
    kernel, step, pad, spread = pairs
    return kernel, step, pad, spread, ceil_mode
