"""Which layer of the float model an artifact's layer is: found by its weights.

A frozen graph has no module names, and another tool's file may order layers differently.
What identifies a layer is what it computes: folding a BatchNorm scales each output channel
and quantization rounds it, but neither turns the channel into another direction.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cosine_similarity

from ptqbench.backends.torch_engines.graph import Graph
from ptqbench.backends.torch_engines.operators import RELU6S, RELUS, Operator

SAME = 0.6
"""Mean |cosine| per channel: rounding to 7 bits leaves above 0.9, chance gives below 0.3."""
_CHANNELS = 64
"""Channels compared; the directions of a few are enough to tell layers apart."""

_LOOKED_THROUGH = frozenset({"aten::dequantize", "aten::quantize_per_tensor"})


@dataclass(frozen=True)
class Match:
    """A layer of an artifact and the layer of the float model that it came from.

    Attributes:
        layer: Of the artifact.
        origin: Of the float model's graph; None if none has such weights.
        similarity: Mean absolute cosine of the weights per output channel, 0 to 1.
    """

    layer: Operator
    origin: Operator | None
    similarity: float

    @property
    def name(self) -> str:
        """Module path in the float model, or what else it can be called."""
        return self.origin.path or self.origin.label if self.origin else self.layer.label


def match_layers(graph: Graph, reference: Graph) -> tuple[Match, ...]:
    """Find the origin of every convolution and linear layer, int8 or float.

    Args:
        graph: Of the artifact.
        reference: Of the float model, with module paths.

    Returns:
        One match per layer in the order of the artifact's graph; no origin twice.
    """
    layers = [o for o in graph.operators if o.is_int8_layer or o.is_float_layer]
    origins = list(reference.float_layers)
    pairs = [
        (similarity(left, right), i, j)
        for i, layer in enumerate(layers)
        if (left := _weights(layer)) is not None
        for j, origin in enumerate(origins)
        if (right := _weights(origin)) is not None and left.shape == right.shape
    ]
    found: dict[int, Match] = {}
    best: dict[int, float] = {}
    taken: set[int] = set()
    for value, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        best.setdefault(i, value)
        if value >= SAME and i not in found and j not in taken:
            found[i] = Match(layers[i], origins[j], value)
            taken.add(j)
    return tuple(
        found.get(i) or Match(layer, None, best.get(i, 0.0)) for i, layer in enumerate(layers)
    )


def similarity(left: Tensor, right: Tensor) -> float:
    """Mean absolute cosine between the output channels of two weights of equal shape.

    Channels that rounding has emptied say nothing and are left out.
    """
    first, second = (w[:_CHANNELS].flatten(1).float() for w in (left, right))
    alive = (first.abs().amax(1) > 0) & (second.abs().amax(1) > 0)
    if not bool(alive.any()):
        return 0.0
    return float(cosine_similarity(first[alive], second[alive]).abs().mean())


def _weights(layer: Operator) -> Tensor | None:
    if layer.packed is None:
        return layer.weight
    packed = layer.packed
    shape = (-1,) + (1,) * (packed.integers.dim() - 1)
    return packed.integers.float() - packed.zero_points.view(shape)


def activation_after(graph: Graph, layer: Operator) -> str:
    """The activation that only this layer's output goes through: relu, relu6 or none.

    A BatchNorm, observers and (de)quantization in between are looked through.
    """
    if layer.is_int8_layer and "_relu" in layer.kind:
        return "relu"
    reader = graph.only_reader(layer)
    while reader is not None and (reader.is_batch_norm or reader.kind in _LOOKED_THROUGH):
        reader = graph.only_reader(reader)
    if reader is None:
        return ""
    return "relu" if reader.kind in RELUS else "relu6" if reader.kind in RELU6S else ""


def unfused_after(graph: Graph, layer: Operator) -> str:
    """What still follows a layer that its kernel could do itself; empty if nothing does.

    BatchNorm can be folded into any convolution or linear layer; a ReLU needs the int8
    kernel ``…_relu``, which there is for static int8 layers with nothing in between.
    """
    reader = graph.only_reader(layer)
    if reader is None:
        return ""
    if reader.is_batch_norm:
        return "BatchNorm"
    plain = layer.is_int8_layer and "_relu" not in layer.kind and layer.scale is not None
    return "ReLU" if plain and reader.kind in RELUS else ""


def is_foldable(graph: Graph, batch_norm: Operator) -> bool:
    """Whether a BatchNorm could be folded into a layer: it alone reads what a layer gives.

    One in front of a convolution, or behind an addition or a concatenation, cannot.
    (De)quantization in between is looked through.
    """
    reader, maker = batch_norm, graph.maker(batch_norm)
    while maker is not None and graph.only_reader(maker) is reader:
        if maker.is_int8_layer or maker.is_float_layer:
            return True
        if maker.kind not in _LOOKED_THROUGH:
            return False
        reader, maker = maker, graph.maker(maker)
    return False
