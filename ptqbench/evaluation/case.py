"""One case: build the int8 artifact, measure it against float32, put it through the gates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend, Model
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.float_reference import TracedModel
from ptqbench.backends.graph import Graph
from ptqbench.backends.registry import BACKENDS
from ptqbench.core.names import safe_file_name
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.data.image_set import Data, ImageSet, broken_in
from ptqbench.evaluation.fields import broken_facts, facts_of, macs_facts, metrics_of
from ptqbench.evaluation.result import CaseResult
from ptqbench.gates import Evidence, evaluate, stopping_rule
from ptqbench.measurement.accuracy import measure_accuracy
from ptqbench.measurement.artifact_inspection import (
    IMAGES,
    ArtifactInspection,
    ArtifactProvenance,
    InspectionResult,
)
from ptqbench.measurement.conversion import Promise
from ptqbench.measurement.macs import CountedModel, Macs
from ptqbench.measurement.replay import ReplayProcess
from ptqbench.measurement.size import measure_size
from ptqbench.measurement.speed import measure_speed, pick_fastest, that_run
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.quantization.completion import complete_recipe
from ptqbench.recipes import CompletedRecipe, Recipe
from ptqbench.settings.thresholds import Thresholds

BATCH_SIZE = 50
"""Images per forward pass in calibration and accuracy (docs/performance.md, Batch size)."""


@dataclass(frozen=True)
class Timing:
    """At which input latency is measured.

    Attributes:
        input_shape: ``N×C×H×W``.
        threads: Threads of both sides.
        seed: Seed of the input and of the bootstrap.
    """

    input_shape: tuple[int, int, int, int]
    threads: int
    seed: int = 0

    def example(self) -> Tensor:
        """A random input of that shape, float32."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.input_shape, generator=generator)


@dataclass(frozen=True)
class Subject:
    """A float32 model that is to be quantized, with everything that goes with it.

    Attributes:
        model: Float32 module in evaluation mode.
        recipe: How it is quantized.
        weights: Where its parameters come from: ``fixture``, ``probe``, a path, ``given``.
        data: Calibration and evaluation images.
        timing: At which input latency is measured.
        folder: Where artifacts are written.
        facts: What else the report shall tell.
        thresholds: What the gates ask for; None: what the recipe promises.
        completed: The recipe, completed from the model's graph; None: not yet.
    """

    model: nn.Module
    recipe: Recipe
    weights: str
    data: Data
    timing: Timing
    folder: Path
    facts: Mapping[str, object]
    thresholds: Thresholds | None = None
    completed: CompletedRecipe | None = None

    def complete(self) -> CompletedRecipe:
        """The recipe with everything that the model's graph determines.

        Raises:
            UserError: The model cannot be traced where its recipe needs that.
        """
        return self.completed or complete_recipe(self.recipe, self.model, self.timing.example())

    @property
    def asked(self) -> Thresholds:
        """What the gates ask for."""
        return self.thresholds or self.recipe.thresholds

    def int8_path(self, backend: str) -> Path:
        """Where the int8 artifact for a backend is written."""
        return self.folder / f"{safe_file_name(self.recipe.model)}-{backend}.int8.pt"


class FloatSide:
    """The float32 side of a model's cases, made once for all backends.

    Args:
        subject: The model.
        backend: Any backend of the runtime; float32 does not depend on the engine.
        phases: Where time is counted.
    """

    def __init__(self, subject: Subject, backend: Backend, phases: Phases) -> None:
        with phases.measure("lower float32"):
            example = next(calibration_batches(subject.data, subject.recipe))[:1]
            path = subject.folder / f"{safe_file_name(subject.recipe.model)}.float32.pt"
            # Traced once: the file is made from it, and the graph read in it.
            self._traced = TracedModel(subject.model, example)
            self.artifact = backend.build_float(
                self._traced.module, subject.recipe.model, example, path
            )
            self._lowerings = backend.float_lowerings(self.artifact)
        self._subject = subject
        self._phases = phases
        self._counted = CountedModel(subject.model)

    @cached_property
    def times_ms(self) -> dict[str, float]:
        """Median time of a call in ms of each lowering, and of the module itself (``eager``)."""
        timing = self._subject.timing
        example = timing.example()
        with self._phases.measure("choose the float32 lowering", forward=True):
            candidates = that_run(self._lowerings, example)
            candidates["eager"] = self._counted
            _, times = pick_fastest(candidates, example, threads=timing.threads, rounds=5)
        return times

    @cached_property
    def graph(self) -> Graph:
        """The float model's own graph, with module paths."""
        with self._phases.measure("read the float graph"):
            return self._traced.graph

    @cached_property
    def macs(self) -> Macs:
        """Multiply-adds of one image at the input of the latency; warming up counted them."""
        return self._counted.macs(self._subject.timing.example())

    @property
    def lowering(self) -> str:
        """Name of the fastest lowering; the module itself is not one that ships."""
        return min(self._lowerings, key=lambda name: self.times_ms.get(name, math.inf))

    @property
    def fastest(self) -> Model:
        """The fastest lowering, which int8 has to beat."""
        return self._lowerings[self.lowering]

    @cached_property
    def predicting(self) -> Model:
        """The fastest lowering that can run the images, whose size is not that of the latency."""
        image = inspection_images(self._subject)[:1]
        able = that_run({self.lowering: self.fastest}, image)
        return able.get(self.lowering, next(iter(self._lowerings.values())))


def calibration_batches(data: Data, recipe: Recipe) -> Iterator[Tensor]:
    """The images that the recipe calibrates with, in batches ``N×C×H×W`` float32."""
    images: ImageSet = data.calibration
    count = min(recipe.calibration_images, images.count)
    return (pixels for pixels, _ in images.batches(0, count, BATCH_SIZE))


def build_int8(
    subject: Subject,
    backend: Backend,
    phases: Phases,
    path: Path | None = None,
    calibrations: CalibrationCache | None = None,
) -> Artifact:
    """Quantize the subject for a backend.

    Args:
        subject: The float32 model.
        backend: What the artifact is for.
        phases: Where time is counted.
        path: Where it is written; by default in the subject's folder.
        calibrations: Shared by the subject's backends, so that those which can calibrate once.

    Raises:
        UserError: The backend is missing or the recipe does not fit.
    """
    batches = calibration_batches(subject.data, subject.recipe)
    path = path or subject.int8_path(backend.name)
    return backend.build(subject.model, subject.complete(), batches, path, phases, calibrations)


def judge(
    subject: Subject,
    backend: Backend,
    artifact: Artifact,
    float_side: FloatSide,
    progress: Progress = silent,
    phases: Phases | None = None,
    looked: InspectionResult | None = None,
    fresh: ReplayProcess | None = None,
) -> CaseResult:
    """Measure an int8 artifact, loaded from its file, and put it through the gates.

    Args:
        subject: The float32 model.
        backend: What the artifact is for.
        artifact: The int8 file.
        float_side: Of the subject.
        progress: Told how far the work is.
        phases: Where time is counted.
        looked: What inspecting it gave, if it was inspected already.
        fresh: A process for the gate fidelity that was started before.
    """
    phases = phases or Phases()
    if fresh is not None:
        fresh.ready()
    thresholds = subject.asked
    here = instruction_set()
    with phases.measure("load int8"):
        int8 = artifact.load()
    accuracy = measure_accuracy(
        float_side.predicting,
        int8,
        subject.data.evaluation,
        batch_size=BATCH_SIZE,
        stop_when=stopping_rule(thresholds),
        progress=progress,
        phases=phases,
    )
    with phases.measure("load int8"):
        # Loaded anew: oneDNN keeps the primitives of the first input shape that a model sees
        # and is much slower on every other one.
        timed = artifact.load()
    with phases.measure("speed pairs", forward=True):
        speed = measure_speed(
            float_side.fastest,
            timed,
            subject.timing.example(),
            threads=subject.timing.threads,
            threshold=thresholds.speedup.get(here) if here in backend.targets else None,
            progress=progress,
            float32_plain_ms=float_side.times_ms["eager"],
        )
    size = measure_size(float_side.artifact.path, artifact.path)
    if looked is None:
        graph = float_side.graph
        with phases.measure("look inside"):
            made = made_by(subject, backend, artifact)
            images = inspection_images(subject)
            looked = ArtifactInspection(made, int8, graph, images, fresh, phases).measure()
    evidence = Evidence(
        thresholds,
        here,
        accuracy=accuracy,
        size=size,
        speed=speed,
        kernels_for=backend.targets,
        missing=looked.missing,
        **looked.measurements,
    )
    with phases.measure("judge"):
        gates = evaluate(evidence)
    measured = (accuracy, size, speed)
    return CaseResult(
        model=subject.recipe.model,
        weights=subject.weights,
        backend=backend.name,
        data=subject.data.name,
        recipe=subject.recipe.hash,
        metrics=metrics_of(*measured),
        gates=gates,
        facts={
            **subject.facts,
            "engine": artifact.info.engine,
            "flow": artifact.info.flow,
            "calibration_images": artifact.info.calibration_images,
            **facts_of(*measured),
            **macs_facts(float_side.macs, looked.measurements.get("conversion")),
            **broken_facts("calibration", broken_in(subject.data.calibration)),
            "float32_lowering": float_side.lowering,
            "float32_lowerings_ms": float_side.times_ms,
        },
    )


def unavailable(
    recipe: Recipe, backend: Backend, reason: str, *, weights: str, data: str
) -> CaseResult:
    """The case of a backend that cannot run here: every gate is unverified, none is green."""
    evidence = Evidence(recipe.thresholds_for(weights), instruction_set(), unavailable=reason)
    return CaseResult(
        model=recipe.model,
        weights=weights,
        backend=backend.name,
        data=data,
        recipe=recipe.hash,
        metrics={},
        gates=evaluate(evidence),
        facts={"engine": backend.engine},
    )


def inspection_images(subject: Subject) -> Tensor:
    """The few calibration images that artifacts are looked into with."""
    return next(calibration_batches(subject.data, subject.recipe))[:IMAGES]


def promise_of(recipe: CompletedRecipe) -> Promise:
    """Return what the int8 artifact of a recipe must contain."""
    return Promise(recipe.int8_modules, recipe.keep_float, recipe.recipe.per_channel)


def made_by(subject: Subject, backend: Backend, artifact: Artifact) -> ArtifactProvenance:
    """What is known about an artifact, for the gates that look inside."""
    info = artifact.info
    return ArtifactProvenance(
        path=artifact.path,
        backend=backend,
        recorded=BACKENDS.get(info.backend),
        record=None if info.build is None else BuildRecord.from_dict(info.build),
        promise=promise_of(subject.complete()),
    )
