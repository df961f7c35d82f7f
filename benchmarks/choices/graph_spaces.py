"""Which channels of a network are the same, so that they can be ordered or scaled together.

Layers, sums and products of a network tie the channels of their inputs and outputs. What is tied
forms a space: every order of its channels gives the same network, if all that makes them or reads
them takes that order.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from ptqbench.quantization.fx_tracing import trace

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
LAYERS = (nn.Conv2d, nn.Linear)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_SAME_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.Sigmoid, nn.Hardsigmoid, nn.GELU),
    *(nn.Identity, nn.Dropout, nn.Dropout2d, *_POOLS),
)
_SAME_FUNCTIONS = (
    *(F.relu, F.relu6, F.hardswish, F.hardsigmoid, F.silu, F.gelu, F.dropout, torch.sigmoid),
    *(F.adaptive_avg_pool2d, F.avg_pool2d, F.max_pool2d, torch.relu, torch.dropout),
    *("relu", "sigmoid", "contiguous"),
)
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_RESHAPES = (torch.flatten, torch.reshape, "flatten", "reshape", "view")
_MEANS = (torch.mean, "mean")


@dataclass
class Space:
    """Channels that belong together.

    Attributes:
        channels: Their number.
        fixed: Whether their order matters outside, or to an operator that is not known here.
        producers: Paths of the layers that make them.
        members: Paths of the BatchNorms and depthwise convolutions that keep them.
        consumers: Paths of the layers that sum over them.
    """

    channels: int
    fixed: bool = False
    producers: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)

    def absorb(self, other: Space) -> None:
        """Take in everything of another space."""
        self.fixed = self.fixed or other.fixed or self.channels != other.channels
        for name in ("producers", "members", "consumers"):
            paths: list[str] = getattr(self, name)
            paths += [path for path in getattr(other, name) if path not in paths]


def traced_with_shapes(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """Return the graph of a model, whose nodes know the shapes of their tensors.

    Args:
        model: Float32, evaluation mode.
        example: One input, ``1×C×H×W`` float32.
    """
    traced = trace(model)
    with torch.no_grad():
        ShapeProp(traced).propagate(example)
    return traced


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor; empty if it has none."""
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each channel of a layer is made from that channel alone."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == (
        layer.out_channels
    )


def has_tensors(module: nn.Module) -> bool:
    """Whether a module holds anything that a change of its channels would have to change."""
    return bool(module.state_dict())


def is_call(node: fx.Node, targets: tuple[Any, ...]) -> bool:
    """Whether a node calls one of several functions or methods."""
    if node.op not in ("call_function", "call_method"):
        return False
    return any(node.target is each or node.target == each for each in targets)


def keeps_channels(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether an operator of one input keeps its channels apart and in order.

    Args:
        node: Of a graph with shapes.
        module: That it calls, if it does.
    """
    before = shape_of(node.all_input_nodes[0]) if len(node.all_input_nodes) == 1 else ()
    after = shape_of(node)
    if len(before) < 2 or len(after) < 2 or before[1] != after[1]:
        return False
    if module is not None:
        return isinstance(module, _SAME_MODULES)
    if is_call(node, (*_RESHAPES, *_MEANS)):  # of maps of one pixel, or over all pixels
        return after == before[:2] or after == (*before[:2], 1, 1)
    if is_call(node, (F.pad,)):
        return len(node.args[1]) <= 2 * (len(before) - 2)  # type: ignore[arg-type]
    return is_call(node, (*_SAME_FUNCTIONS, *_SUMS, *_PRODUCTS)) or (
        getattr(node.target, "__name__", "") == "stochastic_depth"
    )


class _Spaces:
    """The spaces of a graph while it is read."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self._traced = traced
        self._parents: dict[fx.Node, fx.Node] = {}
        self._spaces: dict[fx.Node, Space] = {}
        targets = [node.target for node in traced.graph.nodes if node.op == "call_module"]
        self._calls = Counter(targets)
        for node in traced.graph.nodes:
            self._read(node)

    def __iter__(self) -> Iterator[Space]:
        return iter(self._spaces.values())

    def _space(self, node: fx.Node) -> Space:
        while node in self._parents:
            node = self._parents[node]
        if node not in self._spaces:
            shape = shape_of(node)
            self._spaces[node] = Space(shape[1] if len(shape) > 1 else 0, fixed=len(shape) < 2)
        return self._spaces[node]

    def _tie(self, node: fx.Node, other: fx.Node) -> None:
        space, rest = self._space(node), self._space(other)
        if space is rest:
            return
        space.absorb(rest)
        [top] = [each for each, value in self._spaces.items() if value is space]
        [bottom] = [each for each, value in self._spaces.items() if value is rest]
        del self._spaces[bottom]
        self._parents[bottom] = top

    def _fix(self, *nodes: fx.Node) -> None:
        for node in nodes:
            self._space(node).fixed = True

    def _read(self, node: fx.Node) -> None:
        inputs = node.all_input_nodes
        module = None
        if node.op == "call_module":
            module = self._traced.get_submodule(str(node.target))
            if self._calls[node.target] > 1 and has_tensors(module):
                self._fix(node, *inputs)
        space = self._space(node)
        if isinstance(module, NORMS) or (module is not None and is_depthwise(module)):
            space.members.append(str(node.target))
            self._tie(inputs[0], node)
        elif isinstance(module, LAYERS) and getattr(module, "groups", 1) == 1:
            space.producers.append(str(node.target))
            self._space(inputs[0]).consumers.append(str(node.target))
            if isinstance(module, nn.Linear) and len(shape_of(inputs[0])) != 2:
                self._fix(node, inputs[0])  # its features are not the second dimension
        elif len(inputs) == 1 and keeps_channels(node, module):
            self._tie(inputs[0], node)
        elif len(inputs) == 2 and is_call(node, (*_SUMS, *_PRODUCTS)):
            for each in inputs:
                self._tie(each, node)
        else:
            self._fix(node, *inputs)


def spaces_of(traced: fx.GraphModule) -> list[Space]:
    """Return the spaces of a network's channels.

    Args:
        traced: From `traced_with_shapes`.
    """
    return list(_Spaces(traced))


def permute(model: nn.Module, space: Space, order: Tensor) -> None:
    """Give the channels of a space another order, in place; the network stays the same.

    Args:
        model: The model whose graph the space is from, or a copy.
        space: Not a fixed one.
        order: The channel that comes first, the one that comes second, … int64.
    """
    with torch.no_grad():
        for path in (*space.producers, *space.members):
            module = model.get_submodule(path)
            for values in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if values.dim():  # the number of batches that a BatchNorm has seen is one number
                    values.copy_(values[order])
        for path in space.consumers:
            weight: Tensor = model.get_submodule(path).weight  # type: ignore[assignment]
            weight.copy_(weight[:, order])
