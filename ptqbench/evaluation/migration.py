"""From torch.ao to another runtime: what changes, file against file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend_registry import BACKENDS, default_backend
from ptqbench.core.progress import Progress, silent
from ptqbench.errors import UserError
from ptqbench.evaluation.float_rivals import FloatRivals
from ptqbench.evaluation.recommendation import Candidate, Recommendation, compare
from ptqbench.evaluation.result import CaseResult
from ptqbench.evaluation.subject import Subject
from ptqbench.measurement.file_pair import FilePair, measure_pairs
from ptqbench.recipes import Recipe
from ptqbench.recipes.recipe import MEASURED

ORIGIN = "torch"
"""The runtime that is left."""


@dataclass(frozen=True)
class Destination:
    """A file of another runtime that would replace the one of torch.ao.

    Attributes:
        candidate: The file, what the gates say of it, and its time.
        pair: Its predictions against those of the file that it would replace; None: it did not run.
        gains: Layers that are int8 here, and float32 in the file that it would replace.
        losses: Layers that are int8 there and float32 here.
    """

    candidate: Candidate
    pair: FilePair | None
    gains: tuple[str, ...]
    losses: tuple[str, ...]


@dataclass(frozen=True)
class Migration:
    """The int8 file of torch.ao and those that would replace it.

    Attributes:
        origin: The file of torch.ao.
        destinations: The files of other runtimes, the fastest first.
        recommendation: All of these beside float32, timed in turn.
    """

    origin: Candidate
    destinations: tuple[Destination, ...]
    recommendation: Recommendation


def backends_to_compare(recipe: Recipe) -> tuple[str, ...]:
    """The engine of torch that a recipe recommends, and every backend of another runtime.

    Those that cannot run here are among them: their cases say what to install.
    """
    name = recipe.backend if recipe.backend != MEASURED else default_backend()
    if BACKENDS.get(name).runtime != ORIGIN:
        name = next(each.name for each in BACKENDS if each.runtime == ORIGIN)
    return (name, *(each.name for each in BACKENDS if each.runtime != ORIGIN))


def migrate(
    subject: Subject,
    rivals: FloatRivals,
    artifacts: Mapping[str, Artifact],
    cases: Mapping[str, CaseResult],
    progress: Progress = silent,
) -> Migration:
    """Compare the files of other runtimes with that of torch.ao.

    Args:
        subject: The model.
        rivals: Its float32 side in all runtimes.
        artifacts: The int8 files, by backend.
        cases: What the gates say of each.
        progress: Progress callback.

    Raises:
        UserError: There is no file of torch.ao, or it does not run.
    """
    recommendation = compare(subject, rivals, artifacts, cases, progress)
    files = {each.name: each for each in recommendation.candidates if each.case is not None}
    origin = next((c for n, c in files.items() if BACKENDS.get(n).runtime == ORIGIN), None)
    if origin is None or origin.ms is None:
        raise UserError(
            f"There is no int8 file of torch.ao for {subject.recipe.model} to compare others with. "
            "Name an engine of torch that can run here as well: --backend onednn, for example."
        )
    others = {n: c for n, c in files.items() if c is not origin}
    models = {n: c.artifact.load() for n, c in others.items() if "fidelity" not in c.failures}
    images = subject.data.evaluation
    pairs = measure_pairs(origin.artifact.load(), models, images, progress)
    before = int8_layers(origin)
    destinations = tuple(
        Destination(
            candidate,
            pairs.get(name),
            tuple(layer for layer in int8_layers(candidate) if layer not in before),
            tuple(layer for layer in before if layer not in int8_layers(candidate)),
        )
        for name, candidate in others.items()
    )
    return Migration(origin, destinations, recommendation)


def int8_layers(candidate: Candidate) -> tuple[str, ...]:
    """The layers of an int8 file that are executed in int8, by module path."""
    evidence = None if candidate.case is None else candidate.case.evidence
    conversion = None if evidence is None else evidence.measurements.get("conversion")
    return () if conversion is None else tuple(conversion.int8)
