"""Which layer of the float model each layer of an artifact is, recognised by its weights.

A frozen graph has no module names, and another tool's file may order layers differently.
What identifies a layer is what it computes: folding a BatchNorm scales each output channel
and quantization rounds it, but neither turns the channel into another direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn.functional import cosine_similarity

from ptqbench.backends.graph import Graph, Operator, Role

SAME = 0.6
"""Mean |cosine| per channel: rounding to 7 bits leaves above 0.9, chance gives below 0.3."""
_CHANNELS = 64
"""Channels compared; the directions of a few are enough to tell layers apart."""


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
        """Module path in the float model, or the label of the layer if it has no origin."""
        return self.origin.path or self.origin.label if self.origin else self.layer.label


@dataclass(frozen=True)
class MatchedGraph:
    """An artifact's graph next to that of the float model.

    Attributes:
        graph: Of the artifact, as its file has it.
        reference: Of the float model, with module paths.
        matches: Which layer of the float model each layer of the artifact is.
    """

    graph: Graph
    reference: Graph
    matches: tuple[Match, ...]


def match_graphs(graph: Graph, reference: Graph) -> MatchedGraph:
    """Match an artifact's graph with that of the float model; see :func:`match_layers`."""
    return MatchedGraph(graph, reference, match_layers(graph, reference))


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
        (_likeness(left, origin, reference), i, j)
        for i, layer in enumerate(layers)
        if (left := _weights(layer)) is not None
        for j, origin in enumerate(origins)
        if origin.weight is not None and left.shape == origin.weight.shape
    ]
    matches: dict[int, Match] = {}
    best: dict[int, float] = {}
    taken: set[int] = set()
    for value, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        best.setdefault(i, value)
        if value >= SAME and i not in matches and j not in taken:
            matches[i] = Match(layers[i], origins[j], value)
            taken.add(j)
    _restore_order(matches, layers, reference)
    return tuple(
        matches.get(i) or Match(layer, None, best.get(i, 0.0)) for i, layer in enumerate(layers)
    )


def _restore_order(matches: dict[int, Match], layers: list[Operator], reference: Graph) -> None:
    """Let layers of equal weights follow one another as in the float model, in place.

    Which of them is which does not show in the weights: they are tied, or the calls of one layer.
    """
    equal: dict[tuple[object, ...], list[int]] = {}
    for i in sorted(matches):
        origin = matches[i].origin
        assert origin is not None and origin.weight is not None
        weight = origin.weight
        key = (weight.shape, float(weight.double().sum()), float(weight.double().square().sum()))
        equal.setdefault(key, []).append(i)
    order = {id(origin): place for place, origin in enumerate(reference.float_layers)}
    for places in equal.values():
        sources = sorted((matches[i] for i in places), key=lambda match: order[id(match.origin)])
        by_path = {match.origin.path: match for match in sources if match.origin is not None}
        paths = [layers[i].path for i in places]
        # A layer that is fused with its activation is the first module of a sequence.
        paths = [path if path in by_path else path.removesuffix(".0") for path in paths]
        if sorted(paths) == sorted(by_path):
            # The file has kept the paths; a runtime may order branches as it likes.
            sources = [by_path[path] for path in paths]
        for i, match in zip(places, sources, strict=True):
            matches[i] = replace(match, layer=layers[i])


def _likeness(weights: Tensor, origin: Operator, reference: Graph) -> float:
    """How alike the weights of a layer and those of a layer of the float model are, 0 to 1.

    Weights of nothing but zeros have no direction; they come from a layer that is zero, or
    that a BatchNorm multiplies by zero.
    """
    assert origin.weight is not None
    if bool(weights.any()):
        return similarity(weights, origin.weight)
    after = reference.only_reader(origin)
    scaled = after is not None and after.is_batch_norm and after.weight is not None
    factors = [origin.weight, *([after.weight] if scaled and after else [])]
    return 0.0 if all(bool(factor.any()) for factor in factors if factor is not None) else 1.0


def similarity(left: Tensor, right: Tensor) -> float:
    """Mean absolute cosine between the output channels of two weights of equal shape.

    Channels that are zero after rounding are left out.
    """
    first, second = (w[:_CHANNELS].flatten(1).float() for w in (left, right))
    alive = (first.abs().amax(1) > 0) & (second.abs().amax(1) > 0)
    if not bool(alive.any()):
        return 0.0
    return float(cosine_similarity(first[alive], second[alive]).abs().mean())


def _weights(layer: Operator) -> Tensor | None:
    return layer.weight if layer.integers is None else layer.integers.centred


def activation_after(graph: Graph, layer: Operator) -> str:
    """The activation that only this layer's output goes through: relu, relu6 or none.

    A BatchNorm and (de)quantization in between are ignored.
    """
    if layer.activation:
        return layer.activation
    reader = graph.only_reader(layer)
    while reader is not None and reader.role in (Role.BATCH_NORM, Role.CONVERSION):
        reader = graph.only_reader(reader)
    return reader.role.value if reader and reader.role in (Role.RELU, Role.RELU6) else ""


def unfused_after(graph: Graph, layer: Operator) -> str:
    """What still follows a layer although its kernel could do it; empty if nothing does.

    BatchNorm can be folded into any convolution or linear layer; a ReLU needs an int8
    kernel with a ReLU, which exists for static int8 layers with nothing in between.
    """
    reader = graph.only_reader(layer)
    if reader is None:
        return ""
    if reader.is_batch_norm:
        return "BatchNorm"
    plain = layer.is_int8_layer and not layer.activation and layer.scale is not None
    return "ReLU" if plain and reader.role is Role.RELU else ""


def is_foldable(graph: Graph, batch_norm: Operator) -> bool:
    """Whether a BatchNorm could be folded into a layer: it alone reads the layer's output.

    One in front of a convolution, or behind an activation, an addition or a concatenation, cannot.
    (De)quantization in between is ignored.
    """
    reader, producer = batch_norm, graph.producer(batch_norm)
    while producer is not None and graph.only_reader(producer) is reader:
        if producer.is_int8_layer or producer.is_float_layer:
            return not producer.activation
        if producer.role is not Role.CONVERSION:
            return False
        reader, producer = producer, graph.producer(producer)
    return False
