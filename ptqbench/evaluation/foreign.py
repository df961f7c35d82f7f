"""The evaluation of an int8 file that the user hands over: foreign, or built by ptqbench."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS, other_engines
from ptqbench.backends.foreign_artifact import ForeignArtifact, NotRunningError
from ptqbench.backends.graph import Graph
from ptqbench.backends.process_state import process_unchanged
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.names import is_within, nearest
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.data.image_set import Data
from ptqbench.errors import UserError
from ptqbench.evaluation.artifact_file import ArtifactFile, annotate, open_artifact_file
from ptqbench.evaluation.case import CaseEvaluation, probability_predictors, unavailable_case
from ptqbench.evaluation.float_reference import FloatReference, as_probabilities
from ptqbench.evaluation.float_rivals import FloatRivals
from ptqbench.evaluation.int8_artifact import promise_of
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.open_subject import open_subject
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.evaluation.subject import Subject, shown_settings
from ptqbench.measurement.artifact_inspection import INSPECTIONS, ArtifactProvenance
from ptqbench.measurement.conversion import Promise
from ptqbench.measurement.cross_engine import backends_that_run, measure_engines
from ptqbench.measurement.fidelity import Fidelity
from ptqbench.measurement.replay import (
    FileHangsError,
    FileKillsProcessError,
    NotStartedError,
    ReplayProcess,
)
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.thresholds import Thresholds

_STATIC = ("fusion", "conversion")
"""What the graph alone tells, even of a file that does not run."""
_EXECUTED = ("accuracy", "speed", "saturation", "parity")
"""What running the file tells."""


@process_unchanged()
def gate(
    model: str,
    artifact: str | Path | Artifact,
    backend: str | None = None,
    settings: RunSettings | None = None,
    *,
    recipe: Recipe | None = None,
    data: Data | None = None,
    keep_float: Sequence[str] = (),
    progress: Progress = silent,
    phases: Phases | None = None,
) -> Report:
    """Judge an int8 file against the float32 model that it was built from.

    Args:
        model: Registered name.
        artifact: The file.
        backend: What it will run on; by default the backend that it records, else the one
            that the recipe recommends.
        settings: Weights, images, input, thresholds.
        recipe: By default that of the model.
        data: Opened images, instead of those that the settings name.
        keep_float: Modules that are meant to stay float32, with all below them; wildcards
            allowed.
        progress: Progress callback.
        phases: Where time is counted.

    Raises:
        UserError: A name is unknown, a file is missing, damaged or of another kind, or
            file, weights and images do not belong together.
    """
    phases = phases or Phases()
    name = MODELS.get(model).name
    settings = (settings or RunSettings()).of(name)
    file = open_artifact_file(artifact)
    file.check_model(name)
    recipe = recipe or recipe_for(name, backend, file)
    target = file.choose_backend(backend, recipe)
    torch.set_num_threads(settings.threads or physical_cores())
    if reason := target.availability():
        case = annotate(unavailable_case(recipe, target, reason, settings), file)
    else:
        with ExitStack() as stack:
            subject = open_subject(
                recipe, settings, stack, progress, phases, data=data, complete=bool(file.info)
            )
            settings = subject.settings
            case = evaluate_file(
                subject, target, file, keep_float=keep_float, progress=progress, phases=phases
            )
    return Report(machine_facts(), (case,), shown_settings(settings), phases.records())


def recipe_for(model: str, backend: str | None, file: ArtifactFile) -> Recipe:
    """Return the recipe of a model for its thresholds; without one, the default thresholds.

    Raises:
        UserError: There is no recipe and no backend is named.
    """
    if model in RECIPES:
        return RECIPES.get(model)
    target = backend or file.backend
    if target is None:
        raise UserError(
            f"There is no recipe for {model} that recommends a backend. Name the one that "
            f"{file.path} will run on: one of {', '.join(BACKENDS.names())}."
        )
    return Recipe(model, target, fusion=(), int8_modules=0, thresholds=Thresholds())


def evaluate_file(
    subject: Subject,
    backend: Backend,
    file: ArtifactFile,
    *,
    keep_float: Sequence[str] = (),
    progress: Progress = silent,
    phases: Phases | None = None,
) -> CaseResult:
    """Put a file through every gate that applies to it.

    Args:
        subject: The float32 model that it was built from, with images. Of the recipe only
            the thresholds count, unless the file records that it was built with it.
        backend: What the file will run on; it must be available.
        file: The file.
        keep_float: Modules that are meant to stay float32, with all below them.
        progress: Progress callback.
        phases: Where time is counted.

    Raises:
        UserError: The file takes other images or gives other outputs than the float32
            model, or a module that is to stay float32 is unknown.
    """
    phases = phases or Phases()
    rivals = FloatRivals.of_subject(subject, phases)
    reference = rivals.of(backend)
    keep_float = _float_modules(keep_float, reference.graph)
    images = subject.inspection_images()
    provenance = _provenance(subject, backend, file, keep_float, reference.artifact.path)
    info = file.info or ArtifactInfo("int8", backend.name, "", subject.recipe.model)
    artifact = ForeignArtifact(file.path, info).on(backend)
    # Not in this process: the file may kill or hang the one that loads it.
    with ReplayProcess() as process:
        try:
            with phases.measure("try the file out"):
                classes = _classes(subject, images)
                latency = subject.latency.example()
                behaviour = process.try_out(backend, file.path, images, latency, classes)
        except (NotRunningError, FileKillsProcessError) as problem:
            evaluation = _not_running(subject, artifact, reference, provenance, problem, process)
            return annotate(evaluation.judge(), file, keep_float=keep_float)
        except NotStartedError as problem:
            # The file may be fine, but it is not loaded here without having been tried out.
            names = (*INSPECTIONS, "accuracy", "speed", "parity")
            evaluation = CaseEvaluation(
                subject,
                backend,
                artifact,
                reference,
                provenance=provenance,
                unmeasurable=dict.fromkeys(names, str(problem)),
                phases=phases,
            )
            return annotate(evaluation.judge(), file, keep_float=keep_float)
        artifact = replace(artifact, behaviour=behaviour)
        sample = images[:1] if behaviour.one_at_a_time else images
        evaluation = CaseEvaluation(
            subject,
            backend,
            artifact,
            rivals,
            provenance=provenance,
            images=sample,
            predictors=probability_predictors if behaviour.probabilities else None,
            tolerant=True,
            progress=progress,
            phases=phases,
        )
        with phases.measure("look inside"):
            evaluation.evidence(INSPECTIONS)
            others = other_engines(backend)
            float32 = as_probabilities(subject.model) if behaviour.probabilities else subject.model
            engines = measure_engines(artifact, backend, float32, sample, others, process)
    return annotate(
        evaluation.judge(),
        file,
        keep_float=keep_float,
        engines=engines,
        images=len(sample),
        behaviour=behaviour,
    )


def _classes(subject: Subject, images: Tensor) -> int:
    with torch.inference_mode():
        return int(subject.model(images[:1]).shape[1])


def _provenance(
    subject: Subject,
    backend: Backend,
    file: ArtifactFile,
    keep_float: tuple[str, ...],
    float32: Path,
) -> ArtifactProvenance:
    """What is known about a file: what a recipe promises only if the file was built with it."""
    info = file.info
    promise, record = Promise(keep_float=keep_float), None
    if info is not None and info.build is not None:
        try:
            record = BuildRecord.from_dict(info.build)
        except TypeError:  # another version's record: judged as if there were none
            record = None
    if info is not None and info.recipe_hash == subject.recipe.hash and not keep_float:
        promise = promise_of(subject.complete())
    return ArtifactProvenance(
        path=file.path,
        backend=backend,
        recorded=None if info is None else BACKENDS.get(info.backend),
        record=record,
        promise=promise,
        float32=float32,
    )


def _float_modules(patterns: Iterable[str], graph: Graph) -> tuple[str, ...]:
    """The modules that patterns name, each with all below it.

    Raises:
        UserError: A pattern matches no convolution or linear layer, nor what contains one.
    """
    layers = [layer.path for layer in graph.float_layers]
    modules: list[str] = []
    for pattern in patterns:
        matches = [path for path in layers if fnmatch.fnmatchcase(path, pattern)]
        if any(is_within(path, pattern) for path in layers):
            matches = [pattern]
        if not matches:
            raise UserError(
                f"keep_float: {pattern!r} is not, and does not contain, a convolution or linear "
                f"layer. {nearest(pattern, layers)}"
            )
        modules += matches
    return tuple(dict.fromkeys(modules))


def _not_running(
    subject: Subject,
    artifact: ForeignArtifact,
    reference: FloatReference,
    provenance: ArtifactProvenance,
    problem: NotRunningError | FileKillsProcessError,
    process: ReplayProcess,
) -> CaseEvaluation:
    """The evaluation of a file that cannot be loaded, or runs on no image."""
    backend = provenance.backend
    images = subject.inspection_images()
    others = [] if isinstance(problem, FileHangsError) else other_engines(backend)
    runs = backends_that_run(provenance.path, images[:1], others, process)
    loads = isinstance(problem, NotRunningError) and problem.loads
    reason = f"The file does not run under {backend.engine}: see the gate fidelity."
    unmeasurable = dict.fromkeys(_EXECUTED, reason)
    if not loads and runs:
        # The graph is the same under every engine that can load it.
        provenance = replace(provenance, backend=runs[0])
    elif not loads:
        unmeasurable |= dict.fromkeys(_STATIC, f"The file cannot be loaded: {problem}.")
    return CaseEvaluation(
        subject,
        backend,
        artifact,
        reference,
        provenance=provenance,
        measurements={"fidelity": _infidelity(provenance, backend, len(images), problem, runs)},
        unmeasurable=unmeasurable,
        tolerant=True,
    )


def _infidelity(
    provenance: ArtifactProvenance,
    backend: Backend,
    images: int,
    problem: Exception,
    runs: Sequence[Backend],
) -> Fidelity:
    """What is known about the logits of a file that does not run."""
    error = str(problem)
    if provenance.recorded is not None:
        error += f"; the file records {provenance.recorded.engine}"
    if runs:
        error += f"; it does run under {', '.join(other.engine for other in runs)}"
    return Fidelity(images, 0, None, "", backend.engine, "", error)
