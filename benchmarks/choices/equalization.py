"""Channels between two layers, scaled so that they use one range equally (Nagel et al. 2019).

What a layer makes is divided by a factor for each channel, and the weights of the only layer that
reads it are multiplied by the same: the network stays as it is wherever nothing but zero lies
between them (ReLU, pooling). ReLU6 has another corner, which would have to move: only channels
that stay below it with room, before and after, are scaled there, as far as images have shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from benchmarks.choices.graph_spaces import (
    LAYERS,
    NORMS,
    has_tensors,
    is_call,
    is_depthwise,
    keeps_channels,
)

_RELUS = (F.relu, torch.relu, "relu")
_HOMOGENEOUS = (
    *(nn.Identity, nn.Dropout, nn.Dropout2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)
_HOMOGENEOUS_FUNCTIONS = (
    *(F.dropout, F.adaptive_avg_pool2d, F.avg_pool2d, F.max_pool2d, F.pad),
    *(torch.flatten, torch.reshape, torch.mean),
    *("flatten", "reshape", "view", "mean", "contiguous"),
)
CORNER = 6.0
ROOM = 0.75
"""Share of the corner of a ReLU6 that a scaled channel may reach on the images."""
LARGEST_FACTOR = 16.0


@dataclass(frozen=True)
class Link:
    """Two layers with nothing but homogeneous operators between them.

    Attributes:
        first: Path of the layer that makes the channels.
        norm: Path of the BatchNorm behind it; empty: none.
        last: Path of the layer that reads them.
        last_norm: Path of the BatchNorm behind that; empty: none.
        output: Name of the node of the channels, in front of pooling, behind BatchNorm and ReLU.
        capped: Whether a ReLU6 lies between them.
    """

    first: str
    norm: str
    last: str
    last_norm: str
    output: str
    capped: bool


def links_of(traced: fx.GraphModule) -> list[Link]:
    """Return the pairs of layers of a network whose channels between them can be scaled.

    Args:
        traced: From `graph_spaces.traced_with_shapes`.
    """
    modules = dict(traced.named_modules())
    calls = [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]

    def module_of(node: fx.Node) -> nn.Module | None:
        if node.op != "call_module":
            return None
        module = modules[str(node.target)]
        shared = calls.count(str(node.target)) > 1 and has_tensors(module)
        return None if shared else module

    links = []
    for first in traced.graph.nodes:
        if not _is_layer(module_of(first)):
            continue
        norm, output, capped = "", first, False
        node = _only_user(first)
        while node is not None and not _is_layer(module_of(node)):
            module = module_of(node)
            if isinstance(module, NORMS) and module.affine and output is first:
                norm, output = str(node.target), node
            elif isinstance(module, nn.ReLU6) or is_call(node, (F.relu6,)):
                capped, output = True, node
            elif isinstance(module, nn.ReLU) or is_call(node, _RELUS):
                output = node
            elif not _is_homogeneous(node, module):
                break
            node = _only_user(node)
        else:
            if node is not None:
                after = _only_user(node)
                behind = after is not None and isinstance(module_of(after), NORMS)
                last_norm = str(after.target) if after is not None and behind else ""
                names = str(first.target), norm, str(node.target), last_norm, output.name
                links.append(Link(*names, capped))
    return links


def _is_layer(module: nn.Module | None) -> bool:
    return isinstance(module, LAYERS) and (
        getattr(module, "groups", 1) == 1 or is_depthwise(module)
    )


def _is_homogeneous(node: fx.Node, module: nn.Module | None) -> bool:
    if not keeps_channels(node, module):
        return False
    if module is not None:
        return isinstance(module, _HOMOGENEOUS)
    if is_call(node, (F.pad,)):
        return len(node.args) == 2 and not node.kwargs  # with zeros
    return is_call(node, _HOMOGENEOUS_FUNCTIONS)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


class _Maxima(fx.Interpreter):
    """Runs a graph and keeps the largest value of each channel of some nodes."""

    def __init__(self, traced: fx.GraphModule, names: Iterable[str]) -> None:
        super().__init__(traced)
        self.maxima: dict[str, Tensor] = {}
        self._names = frozenset(names)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._names:
            largest = value.movedim(1, 0).flatten(1).abs().amax(1)
            before = self.maxima.get(n.name, largest)
            self.maxima[n.name] = torch.maximum(before, largest)
        return value


@torch.no_grad()
def channel_maxima(
    traced: fx.GraphModule, links: Iterable[Link], batches: Iterable[Tensor]
) -> Mapping[str, Tensor]:
    """Return the largest magnitude of each channel between two layers, by the node's name.

    Args:
        traced: The graph that the links are from.
        links: Which channels.
        batches: Images, ``N×C×H×W`` float32.
    """
    interpreter = _Maxima(traced, [link.output for link in links])
    for batch in batches:
        interpreter.run(batch)
    return interpreter.maxima


def folded_weight(model: nn.Module, layer: str, norm: str) -> Tensor:
    """Return the weights of a layer as a BatchNorm behind it scales them, ``O×I×positions``.

    Args:
        model: Float32.
        layer: Path of a convolution or linear layer.
        norm: Path of the BatchNorm; empty: none.
    """
    weight: Any = model.get_submodule(layer).weight
    result: Tensor = weight.detach().flatten(2) if weight.dim() > 2 else weight.detach()[..., None]
    if norm:
        module: Any = model.get_submodule(norm)
        gains = module.weight / (module.running_var + module.eps).sqrt()
        result = result * gains.detach()[:, None, None]
    return result


def input_ranges(model: nn.Module, link: Link, *, relative: bool) -> Tensor:
    """Return the largest weight that reads each channel.

    Args:
        model: Float32.
        link: Of its graph.
        relative: As a share of the largest weight of the output channel, which has a scale of
            its own.
    """
    sizes = folded_weight(model, link.last, link.last_norm).abs().amax(2)
    if relative:
        sizes = sizes / sizes.amax(1, keepdim=True).clamp(min=1e-30)
    depthwise = is_depthwise(model.get_submodule(link.last))
    return sizes[:, 0] if depthwise else sizes.amax(0)


Factors = Callable[[nn.Module, Link, Tensor], Tensor]
"""From a model, a link and its channels' largest values: what each channel is divided by."""


def by_weights(model: nn.Module, link: Link, maxima: Tensor) -> Tensor:
    """Equalize the weights on both sides, as Nagel et al. do."""
    before = folded_weight(model, link.first, link.norm).abs().amax((1, 2))
    return (before / input_ranges(model, link, relative=False)).sqrt()


def by_activations(model: nn.Module, link: Link, maxima: Tensor) -> Tensor:
    """Equalize what one grid of activations and one grid of weights per output channel hold.

    A depthwise convolution has a scale for each channel, so that its activations can be
    equalized at no cost; elsewhere both share the burden.
    """
    if is_depthwise(model.get_submodule(link.last)):
        return maxima
    return (maxima / input_ranges(model, link, relative=True)).sqrt()


@torch.no_grad()
def equalize(
    model: nn.Module, links: Iterable[Link], maxima: Mapping[str, Tensor], factors: Factors
) -> int:
    """Scale the channels between layers, in place.

    Args:
        model: Float32, evaluation mode; its logits stay the same on the images of the maxima.
        links: Of its graph.
        maxima: From `channel_maxima`.
        factors: How they are scaled.

    Returns:
        The number of channels that are scaled.
    """
    count = 0
    for link in links:
        largest = maxima[link.output]
        chosen = usable_factors(factors(model, link, largest), largest, capped=link.capped)
        for values in model.get_submodule(link.norm or link.first).parameters(recurse=False):
            values.div_(chosen.view(-1, *[1] * (values.dim() - 1)))
        last: Any = model.get_submodule(link.last)
        if is_depthwise(last):
            last.weight.mul_(chosen.view(-1, 1, 1, 1))
        else:
            last.weight.mul_(chosen.view(1, -1, *[1] * (last.weight.dim() - 2)))
        count += int((chosen != 1).sum())
    return count


def usable_factors(factors: Tensor, maxima: Tensor, *, capped: bool) -> Tensor:
    """Return factors that keep the range of the activations as it is, and a ReLU6 out of it.

    Args:
        factors: One for each channel, up to a common one.
        maxima: The largest value of each channel.
        capped: Whether a ReLU6 lies behind the channels.
    """
    usable = factors.isfinite() & (factors > 0) & (maxima > 0)
    if not bool(usable.any()):
        return torch.ones_like(factors)
    result = torch.where(usable, factors, 1.0)
    common = maxima.max() / (maxima / result)[usable].max()
    result = torch.where(usable, result / common, 1.0)
    result = result.clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    if capped:
        below = maxima < ROOM * CORNER
        result = torch.maximum(result, maxima / (ROOM * CORNER))
        result = torch.where(below, result, 1.0)
    return result
