"""Fold BatchNorms of a float32 program into the convolutions in front of them, in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

_ATEN = torch.ops.aten


def fold_batch_norms(module: fx.GraphModule) -> None:
    """Fold each BatchNorm that alone reads a convolution with constant float32 weights."""
    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=_ATEN.batch_norm.default):
        convolution = node.args[0]
        if not _is_foldable(convolution, node):
            continue
        scale, shift = _affine(module, node)
        weight, bias = convolution.args[1], convolution.args[2]
        name = str(weight.target)
        values: Tensor = getattr(module, name)
        stretched = scale.view(-1, *(1,) * (values.dim() - 1))
        setattr(module, name, values * stretched)
        offset = shift if bias is None else shift + _value(module, bias) * scale
        module.register_buffer(f"{name}_bias", offset)
        with graph.inserting_before(convolution):
            folded = graph.get_attr(f"{name}_bias")
        convolution.args = (convolution.args[0], weight, folded, *convolution.args[3:])
        node.replace_all_uses_with(convolution)
        graph.erase_node(node)


def _is_foldable(convolution: Any, node: fx.Node) -> bool:
    """Whether an input is a convolution whose weights and output nothing else reads."""
    if not isinstance(convolution, fx.Node) or convolution.target is not _ATEN.convolution.default:
        return False
    weight, bias, transposed = convolution.args[1], convolution.args[2], convolution.args[6]
    constants = [*node.args[1:5], weight, *([] if bias is None else [bias])]
    return (
        len(convolution.users) == 1
        and not transposed
        and node.args[5] is False
        and all(each is None or _is_constant(each) for each in constants)
        and isinstance(weight, fx.Node)
        and len(weight.users) == 1
    )


def _is_constant(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"


def _affine(module: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor]:
    """What a BatchNorm multiplies each channel by, and what it adds."""
    weight, bias, mean, variance = (
        None if each is None else _value(module, each) for each in node.args[1:5]
    )
    assert mean is not None and variance is not None
    epsilon = node.args[7]
    assert isinstance(epsilon, float)
    scale = torch.rsqrt(variance + epsilon)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _value(module: fx.GraphModule, node: Any) -> Tensor:
    value: Tensor = getattr(module, str(node.target))
    return value.detach()
