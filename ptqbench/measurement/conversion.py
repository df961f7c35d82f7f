"""Was everything converted that should be: read from the artifact's own graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ptqbench.backends.graph import Graph
from ptqbench.core.names import is_within
from ptqbench.measurement.layer_matching import Match, MatchedGraph, is_foldable
from ptqbench.quantization.build_record import BuildRecord


@dataclass(frozen=True)
class Promise:
    """What conversion must yield.

    Attributes:
        int8_layers: How many layers; None: as many as the float model's graph has.
        keep_float: Module paths that stay in float, with all below them.
        per_channel: Whether weights must have a scale per output channel.
    """

    int8_layers: int | None = None
    keep_float: tuple[str, ...] = ()
    per_channel: bool = False

    def keeps(self, name: str) -> bool:
        """Whether the layer ``name`` stays in float."""
        return any(is_within(name, parent) for parent in self.keep_float)


@dataclass(frozen=True)
class Conversion:
    """What conversion left in an artifact; layers are named by module path.

    Attributes:
        promised: How many int8 layers there must be.
        int8: Layers that are int8.
        missing: Layers that must be int8 and are not in the artifact as such.
        stray: Float layers in the artifact that no recipe keeps.
        not_kept: Layers that must stay in float and are int8.
        foreign: int8 layers whose weights are those of no layer of the float model.
        batch_norms: BatchNorm operators left that a layer could have taken up.
        observers: Observers and fake quantization left.
        defaults: Operators with scale 1 and zero point 0.
        per_tensor: Layers with one scale for all channels, where more are promised.
        unseen: Observers on a reached path that saw no data; None: not recorded.
        unreached: Observers on paths that the model does not take.
        advice: What to do about a problem, by its field; see ``Backend.advice``.
    """

    promised: int
    int8: tuple[str, ...]
    missing: tuple[str, ...]
    stray: tuple[str, ...]
    not_kept: tuple[str, ...]
    foreign: tuple[str, ...]
    batch_norms: tuple[str, ...]
    observers: tuple[str, ...]
    defaults: tuple[str, ...]
    per_tensor: tuple[str, ...]
    unseen: tuple[str, ...] | None
    unreached: tuple[str, ...]
    advice: Mapping[str, str] = field(default_factory=dict)


def measure_conversion(
    matched: MatchedGraph,
    promise: Promise,
    record: BuildRecord | None,
    advice: Mapping[str, str] | None = None,
) -> Conversion:
    """Compare the artifact's layers with what was promised.

    Args:
        matched: The artifact next to the float model.
        promise: Of the recipe; an empty one requires what the float model's graph has.
        record: What was seen during the build, if ptqbench built the artifact.
        advice: Of the backend.
    """
    graph, matches, reference = matched.graph, matched.matches, matched.reference
    required = [o.label for o in reference.float_layers if not promise.keeps(o.label)]
    int8 = [m.name for m in matches if m.layer.is_int8_layer and m.origin]
    stray = [m for m in matches if m.layer.is_float_layer and not promise.keeps(m.name)]
    names = {m.layer.value: m.name for m in matches}
    return Conversion(
        promised=len(required) if promise.int8_layers is None else promise.int8_layers,
        int8=tuple(int8),
        missing=_without(required, int8),
        stray=tuple(m.name for m in stray),
        not_kept=tuple(name for name in int8 if promise.keeps(name)),
        foreign=tuple(m.name for m in matches if m.layer.is_int8_layer and not m.origin),
        batch_norms=tuple(_place(graph, i, names) for i in _batch_norms(graph, reference)),
        observers=(
            *graph.modules_left,
            *(_place(graph, i, names) for i in _where(graph, "is_observer")),
        ),
        defaults=tuple(_place(graph, i, names) for i in _where(graph, "has_default_range")),
        per_tensor=tuple(
            m.name
            for m in matches
            if promise.per_channel and m.layer.integers and not m.layer.integers.per_channel
        ),
        unseen=None if record is None else record.unseen,
        unreached=() if record is None else record.unreached,
        advice={**(advice or {}), **_obstacles(stray)},
    )


def _obstacles(stray: Sequence[Match]) -> dict[str, str]:
    """Why float layers are not int8, by the number of layers, if their runtime's reader tells."""
    counts = Counter(match.layer.obstacle for match in stray if match.layer.obstacle)
    reasons = [f"in {count}, {reason}" for reason, count in counts.most_common()]
    return {"stray": "; ".join(reasons)} if reasons else {}


def _without(names: list[str], present: Iterable[str]) -> tuple[str, ...]:
    """Names that are not present, counting: a layer that runs twice is there twice."""
    rest = list(names)
    for name in present:
        if name in rest:
            rest.remove(name)
    return tuple(dict.fromkeys(rest))


def _batch_norms(graph: Graph, reference: Graph) -> list[int]:
    """BatchNorms of the artifact that could be folded; all of them if it has too many.

    Those that follow no layer stay, but not more of them than the float model has.
    """
    left = _where(graph, "is_batch_norm")
    needed = [i for i in left if not is_foldable(graph, graph.operators[i])]
    allowed = sum(o.is_batch_norm and not is_foldable(reference, o) for o in reference.operators)
    return [i for i in left if i not in needed] if len(needed) <= allowed else left


def _where(graph: Graph, what: str) -> list[int]:
    return [i for i, operator in enumerate(graph.operators) if getattr(operator, what)]


def _place(graph: Graph, index: int, names: dict[str, str]) -> str:
    """The layer's name, or the operator and the last layer before it."""
    operator = graph.operators[index]
    if operator.value in names:
        return names[operator.value]
    if operator.path:
        return operator.path
    before = (names[o.value] for o in reversed(graph.operators[:index]) if o.value in names)
    last = next(before, None)
    return f"{operator.kind} " + (f"after {last}" if last else "before the first layer")
