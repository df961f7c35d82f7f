"""Was fusion right: structure and semantics from the artifact, numbers from its build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ptqbench.backends.graph import Graph, Operator, Role
from ptqbench.measurement.bn_folding import Folding
from ptqbench.measurement.layer_matching import (
    Match,
    MatchedGraph,
    activation_after,
    unfused_after,
)
from ptqbench.quantization.build_record import BuildRecord


@dataclass(frozen=True)
class Fusion:
    """How the fusion groups of the float model ended up in an artifact.

    Attributes:
        groups: Layers of the float model that a BatchNorm or a ReLU directly follows, without
            those that are meant to stay float32.
        fused: How many of them are one operator in the artifact, with the activation
            that the float model has there.
        problems: What is wrong, each with the module path.
        error: Largest relative difference between fused and unfused float logits; None
            if the file has no record of its build.
        images: Number of images that ``error`` was measured on.
        untraceable: Why the build's graph could not be searched; empty if it was.
        folding: Whether the int8 weights are the folded float weights; None if they were
            not compared.
    """

    groups: int
    fused: int
    problems: tuple[str, ...]
    error: float | None
    images: int
    untraceable: str = ""
    folding: Folding | None = None


def measure_fusion(
    matched: MatchedGraph,
    record: BuildRecord | None,
    folding: Folding | None = None,
    keeps: Callable[[str], bool] = lambda name: False,
) -> Fusion:
    """Compare what follows each layer in the artifact with what follows it in float.

    Args:
        matched: The artifact next to the float model.
        record: What was seen during the build, if ptqbench built the artifact.
        folding: How the weights compare, if there is no record.
        keeps: Whether the layer of a path is meant to stay float32.
    """
    reference = matched.reference

    def counts(layer: Operator) -> bool:
        return _is_group(layer, reference) and not keeps(layer.label)

    problems: list[str] = []
    fused = 0
    for match in matched.matches:
        wrong = tuple(_problems(match, matched))
        problems += wrong
        fused += not wrong and match.origin is not None and counts(match.origin)
    if record is not None:
        problems += _recorded(record)
    return Fusion(
        groups=sum(counts(layer) for layer in reference.float_layers),
        fused=fused,
        problems=tuple(dict.fromkeys(problems)),
        error=None if record is None else record.error,
        images=0 if record is None else record.images,
        untraceable="" if record is None else record.untraceable,
        folding=folding,
    )


def _is_group(layer: Operator, reference: Graph) -> bool:
    """Whether a BatchNorm or a ReLU directly follows a layer of the float model."""
    after = reference.only_reader(layer)
    return (after is not None and after.is_batch_norm) or activation_after(reference, layer) != ""


def _problems(match: Match, matched: MatchedGraph) -> Iterator[str]:
    layer = match.layer
    left = unfused_after(matched.graph, layer)
    if left and not (left == "BatchNorm" and _is_activated_first(match, matched.reference)):
        yield f"{match.name}: the {left} that follows is not fused into it"
    if match.origin is None:
        return
    expected = activation_after(matched.reference, match.origin)
    actual = activation_after(matched.graph, layer)
    if actual == "relu" and not expected:
        yield (
            f"{match.name}: a ReLU is folded into it that the float model does not have there "
            "(it belongs behind the residual addition, or to another layer)"
        )
    # An output range that begins at zero is a ReLU already.
    if expected and not actual and layer.is_int8_layer and layer.zero_point != layer.lowest:
        yield f"{match.name}: the {expected} that follows it in float is lost"


def _is_activated_first(match: Match, reference: Graph) -> bool:
    """Whether the float model has the activation in front of the BatchNorm, as the artifact."""
    after = None if match.origin is None else reference.only_reader(match.origin)
    return bool(match.layer.activation) and after is not None and after.role is Role.RELU


def _recorded(record: BuildRecord) -> Iterator[str]:
    if record.promised is not None and record.promised != record.groups:
        yield (
            f"the recipe promises {record.promised} fusion groups, and the model's graph has "
            f"{record.groups}: it belongs to another architecture, or fused_groups is out of date"
        )
    texts = (
        (record.unfused, "declared as a group, but not fused"),
        (record.extra, "fused, but no declared group requires it"),
        (record.undeclared, "belong together in the float model, but no group declares them"),
        (record.wrong, "declared as a group, but the float model does not run them so"),
        (record.left, "could be fused, but are still apart in the fused model"),
        (record.training_only, "needed in training only, but still there"),
    )
    for names, text in texts:
        yield from (f"{name}: {text}" for name in names)
