"""Simplify a lifted graph: BatchNorms in a row become one, padding goes into convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import fx, nn
from torch.fx import Node
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ptqbench.quantization.canonical.plain_layers import merge_batch_norm

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def simplify(model: fx.GraphModule) -> None:
    """Simplify a lifted model, in place."""
    calls: dict[str, int] = {}
    for node in model.graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    for node in list(model.graph.nodes):
        layer = _layer(model, node)
        if layer is None or calls[str(node.target)] > 1:
            continue
        if isinstance(layer, _CONVOLUTIONS):
            _take_up_padding(model, node, layer)
        elif isinstance(layer, _BATCH_NORMS):
            _merge_into_previous(model, node, layer, calls)
    model.graph.eliminate_dead_code()
    model.delete_all_unused_submodules()
    model.recompile()


def _layer(model: fx.GraphModule, node: Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _take_up_padding(model: fx.GraphModule, node: Node, layer: Any) -> None:
    """Let a convolution pad with zeros what is padded evenly in front of it."""
    pad = node.all_input_nodes[0]
    if pad.target is not F.pad or len(pad.users) > 1:
        return
    source, amounts, mode, value = pad.args
    assert isinstance(amounts, Sequence)
    even = _even_padding(amounts, len(layer.padding))
    if mode != "constant" or value not in (None, 0, 0.0) or even is None:
        return
    layer.padding = tuple(p + more for p, more in zip(layer.padding, even, strict=True))
    layer._reversed_padding_repeated_twice = [p for p in reversed(layer.padding) for _ in (0, 1)]
    node.replace_input_with(pad, source)  # type: ignore[arg-type]
    model.graph.erase_node(pad)


def _even_padding(amounts: Sequence[Any], dimensions: int) -> tuple[int, ...] | None:
    """Padding per dimension, first one first; None if the two ends of one differ."""
    if len(amounts) > 2 * dimensions or any(not isinstance(p, int) or p < 0 for p in amounts):
        return None
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    if any(low != high for low, high in pairs):
        return None
    return (*(0,) * (dimensions - len(pairs)), *(low for low, _ in reversed(pairs)))


def _merge_into_previous(
    model: fx.GraphModule, node: Node, layer: nn.Module, calls: dict[str, int]
) -> None:
    """Let a BatchNorm or a transposed convolution in front do what this one does.

    A transposed convolution stays float32, where torch.ao folds no BatchNorm that has a ReLU
    behind it.
    """
    previous = node.all_input_nodes[0]
    first: Any = _layer(model, previous)
    if first is None or len(previous.users) > 1 or calls[str(previous.target)] > 1:
        return
    if isinstance(first, _BATCH_NORMS):
        merge_batch_norm(first, layer)
    elif isinstance(first, _TRANSPOSED):
        folded = fuse_conv_bn_eval(first, cast(Any, layer), transpose=True)
        model.set_submodule(str(previous.target), folded)
    else:
        return
    node.replace_all_uses_with(previous)
    model.graph.erase_node(node)
