"""Put an int8 file through the gates that ptqbench did not make, or does not remember making."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.artifact import ArtifactInfo
from ptqbench.backends.backend import Backend
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.foreign_artifact import ForeignArtifact, NotRunningError
from ptqbench.backends.graph import Graph
from ptqbench.backends.process_state import process_unchanged
from ptqbench.backends.registry import BACKENDS, recommended
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.names import is_within, nearest
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.errors import UserError
from ptqbench.evaluation.case import (
    FloatSide,
    Subject,
    inspection_images,
    judge,
    promise_of,
    unavailable,
)
from ptqbench.evaluation.foreign_notes import Given, check_model, open_given, told
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.evaluation.subject import open_subject, shown_settings
from ptqbench.gates import Evidence, evaluate
from ptqbench.measurement.artifact_inspection import (
    INSPECTIONS,
    ArtifactInspection,
    ArtifactProvenance,
    InspectionResult,
)
from ptqbench.measurement.conversion import Promise
from ptqbench.measurement.cross_engine import measure_engines
from ptqbench.measurement.fidelity import Fidelity
from ptqbench.measurement.replay import FileKillsProcessError, NotStartedError, ReplayProcess
from ptqbench.measurement.size import measure_size
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.thresholds import Thresholds

_STATIC = ("fusion", "conversion")
"""What the graph alone tells, of a file that runs on nothing too."""


@process_unchanged()
def gate(
    model: str,
    artifact: str | Path,
    backend: str | None = None,
    settings: RunSettings | None = None,
    *,
    keep_float: Sequence[str] = (),
    progress: Progress = silent,
    phases: Phases | None = None,
) -> Report:
    """Judge an int8 file beside the float32 model that it was made from.

    Args:
        model: Registered name.
        artifact: The TorchScript file, whoever made it.
        backend: What it will run on; by default the backend that it records, else the one
            that the recipe recommends.
        settings: Weights, images, input, thresholds.
        keep_float: Modules that are meant to stay float32, with all below them.
        progress: Told how far the work is.
        phases: Where time is counted.

    Raises:
        UserError: A name is unknown, a file is missing, damaged or of another kind, or
            file, weights and images do not belong together.
    """
    settings = settings or RunSettings()
    phases = phases or Phases()
    name = MODELS.get(model).name
    settings = settings.of(name)
    given = open_given(artifact)
    check_model(given, name)
    recipe = recipe_for(name, backend, given)
    target = BACKENDS.get(backend or given.backend or recommended(recipe))
    torch.set_num_threads(settings.threads or physical_cores())
    if reason := target.availability():
        case = unavailable_given(
            recipe, target, given, reason, str(settings.weights), settings.data
        )
    else:
        with ExitStack() as stack:
            own = given.info is not None
            subject = open_subject(recipe, settings, stack, progress, phases, complete=own)
            case = judge_given(
                subject, target, given, keep_float=keep_float, progress=progress, phases=phases
            )
    return Report(machine_facts(), (case,), shown_settings(settings))


def recipe_for(model: str, backend: str | None, given: Given) -> Recipe:
    """The recipe of a model, for its thresholds; without one, the default thresholds.

    Raises:
        UserError: There is no recipe and nobody names a backend.
    """
    if model in RECIPES:
        return RECIPES.get(model)
    known = backend or given.backend
    if known is None:
        raise UserError(
            f"There is no recipe for {model} that recommends a backend. Name the one that "
            f"{given.path} will run on: one of {', '.join(BACKENDS.names())}."
        )
    return Recipe(model, known, fusion=(), int8_modules=0, thresholds=Thresholds())


def unavailable_given(
    recipe: Recipe, backend: Backend, given: Given, reason: str, weights: str, data: str
) -> CaseResult:
    """The case of a file whose backend cannot run here: every gate is unverified."""
    case = unavailable(recipe, backend, reason, weights=weights, data=data)
    return told(case, given)


def judge_given(
    subject: Subject,
    backend: Backend,
    given: Given,
    *,
    keep_float: Sequence[str] = (),
    progress: Progress = silent,
    phases: Phases | None = None,
) -> CaseResult:
    """Put a file through every gate that applies to it.

    Args:
        subject: The float32 model that it was made from, with images. Of the recipe only
            the thresholds count, unless the file records that it was made by it.
        backend: What the file will run on; it must be available.
        given: The file.
        keep_float: Modules that are meant to stay float32, with all below them.
        progress: Told how far the work is.
        phases: Where time is counted.

    Raises:
        UserError: The file takes other images or gives other outputs than the float32
            model, or a module that is to stay float32 is unknown.
    """
    phases = phases or Phases()
    float_side = FloatSide(subject, backend, phases)
    _check_layers(keep_float, float_side.graph)
    images = inspection_images(subject)
    made = _made(subject, backend, given, keep_float, float_side.artifact.path)
    info = given.info or ArtifactInfo("int8", backend.name, "", subject.recipe.model)
    file = ForeignArtifact(given.path, info).on(backend)
    # Not in this process: the file may kill or hang the one that loads it.
    with ReplayProcess() as process:
        try:
            with phases.measure("try the file out"):
                classes = _classes(subject, images)
                latency = subject.timing.example()
                behaviour = process.try_out(backend, given.path, images, latency, classes)
        except (NotRunningError, NotStartedError, FileKillsProcessError) as problem:
            case = _not_running(subject, backend, made, float_side, images, problem, process)
            return told(case, given, keep_float=keep_float)
        file = replace(file, behaviour=behaviour)
        seen = images[:1] if behaviour.one_at_a_time else images
        with phases.measure("look inside"):
            inspection = ArtifactInspection(
                made, file.load(), float_side.graph, seen, phases=phases
            )
            looked = _applicable(inspection.measure(forgiving=True))
            engines = measure_engines(file, backend, subject.model, seen, _others(backend), process)
    case = judge(subject, backend, file, float_side, progress, phases, looked)
    return told(
        case,
        given,
        keep_float=keep_float,
        engines=engines,
        images=len(seen),
        file=file,
    )


def _classes(subject: Subject, images: Tensor) -> int:
    with torch.inference_mode():
        return int(subject.model(images[:1]).shape[1])


def _others(backend: Backend) -> list[Backend]:
    """The other backends of the same runtime that are available."""
    return [
        other
        for other in BACKENDS
        if other.runtime == backend.runtime
        and other.engine != backend.engine
        and other.availability() is None
    ]


def _made(
    subject: Subject, backend: Backend, given: Given, keep_float: Sequence[str], float32: Path
) -> ArtifactProvenance:
    """What is known about a file: all that a recipe promises only if it was made by it."""
    info = given.info
    promise, record = Promise(keep_float=tuple(keep_float)), None
    if info is not None and info.build is not None:
        try:
            record = BuildRecord.from_dict(info.build)
        except TypeError:  # another version's record: judged as if there were none
            record = None
    if info is not None and info.recipe_hash == subject.recipe.hash and not keep_float:
        promise = promise_of(subject.complete())
    return ArtifactProvenance(
        path=given.path,
        backend=backend,
        recorded=None if info is None else BACKENDS.get(info.backend),
        record=record,
        promise=promise,
        float32=float32,
    )


def _check_layers(names: Iterable[str], reference: Graph) -> None:
    layers = [layer.path for layer in reference.float_layers]
    for name in names:
        if not any(is_within(layer, name) for layer in layers):
            raise UserError(
                f"{name!r} is to stay float32, but is no convolution or linear layer of the "
                f"model, nor holds one. {nearest(name, layers)}"
            )


def _applicable(looked: InspectionResult) -> InspectionResult:
    """Leave out what would be true of nothing: without int8 layers nothing was fused."""
    conversion = looked.measurements.get("conversion")
    if conversion is None or conversion.int8 or conversion.foreign:
        return looked
    measured = {name: value for name, value in looked.measurements.items() if name != "fusion"}
    reason = "There is no int8 layer in the file, and so nothing to be fused in int8."
    return InspectionResult(measured, {**looked.missing, "fusion": reason})


def _not_running(
    subject: Subject,
    backend: Backend,
    made: ArtifactProvenance,
    float_side: FloatSide,
    images: Tensor,
    problem: NotRunningError | NotStartedError | FileKillsProcessError,
    process: ReplayProcess,
) -> CaseResult:
    """What can be said of a file that cannot be loaded, or runs on no image."""
    looked = InspectionResult(
        {}, {name: f"The file cannot be loaded: {problem}." for name in _STATIC}
    )
    fidelity = None
    if isinstance(problem, NotStartedError):
        # It may be fine, but is not loaded here without having been tried out.
        looked = InspectionResult(
            {}, dict.fromkeys((*INSPECTIONS, "accuracy", "speed"), str(problem))
        )
    else:
        runs = _backends_that_run(made, images, _others(backend), process)
        fidelity = _infidelity(made, images, str(problem), runs)
        loads = isinstance(problem, NotRunningError) and problem.loads
        if loads or runs:
            # The graph is the same under every engine that can load it.
            readable = made if loads else replace(made, backend=runs[0])
            inspection = ArtifactInspection(readable, subject.model, float_side.graph, images)
            looked = _applicable(inspection.measure(_STATIC, forgiving=True))
    missing = {
        name: f"The file does not run under {backend.engine}: see the gate fidelity."
        for name in ("accuracy", "speed", "saturation")
    }
    size = measure_size(float_side.artifact.path, made.path)
    evidence = Evidence(
        subject.asked,
        instruction_set(),
        size=size,
        fidelity=fidelity,
        kernels_for=backend.targets,
        missing={**missing, **looked.missing},
        **looked.measurements,
    )
    return CaseResult(
        model=subject.recipe.model,
        weights=subject.weights,
        backend=backend.name,
        data=subject.data.name,
        recipe="",
        metrics={
            "float32_bytes": size.float32_bytes,
            "int8_bytes": size.int8_bytes,
            "size_ratio": size.ratio,
        },
        gates=evaluate(evidence),
        facts={**subject.facts, "engine": backend.engine},
    )


def _backends_that_run(
    made: ArtifactProvenance, images: Tensor, others: Iterable[Backend], process: ReplayProcess
) -> list[Backend]:
    """The backends on which another process can load the file and gets logits for an image."""
    return [
        other for other in others if process.replay(other, made.path, images[:1]).logits is not None
    ]


def _infidelity(
    made: ArtifactProvenance, images: Tensor, reason: str, runs: Sequence[Backend]
) -> Fidelity:
    """What is known about the logits of a file that does not run."""
    error = reason
    if made.recorded is not None:
        error += f"; the file records {made.recorded.engine}"
    if runs:
        error += f"; it does run under {', '.join(other.engine for other in runs)}"
    return Fidelity(len(images), 0, None, "", made.backend.engine, "", error)
