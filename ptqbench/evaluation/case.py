"""The evaluation of a case: each measurement once, when a gate needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

from torch import Tensor

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend, Model, SimulationError
from ptqbench.backends.cpu import instruction_set
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.core.step_errors import step
from ptqbench.data.image_set import ImageSet, alike_in, broken_in
from ptqbench.evaluation.case_measurements import MEASUREMENTS
from ptqbench.evaluation.fields import broken_facts, facts_of, macs_facts, metrics_of
from ptqbench.evaluation.float_reference import FloatReference, as_probabilities
from ptqbench.evaluation.float_rivals import FloatRivals, Opponent
from ptqbench.evaluation.int8_artifact import build_provenance
from ptqbench.evaluation.result import CaseResult
from ptqbench.evaluation.subject import Subject
from ptqbench.gates import Evidence, evaluate, gates_in_order
from ptqbench.gates.gate import GATES
from ptqbench.measurement.artifact_inspection import (
    INSPECTIONS,
    ArtifactInspection,
    ArtifactProvenance,
)
from ptqbench.measurement.replay import ReplayProcess
from ptqbench.recipes import Recipe
from ptqbench.settings.run_settings import RunSettings

Predictors = Callable[["CaseEvaluation"], tuple[Model, Model, ImageSet]]
"""Supplies float32, int8 and the images that both predict."""


class CaseEvaluation:
    """All measurements of one int8 artifact against its float32 reference.

    Every door judges a case through this object, so that they cannot disagree. A measurement
    is taken once, when a gate needs it; one that cannot be taken has a reason instead.

    Args:
        subject: The float32 model.
        backend: What executes the artifact.
        artifact: The int8 artifact; measurements load its file.
        reference: The float32 side of the subject: in one runtime, or in all that are installed.
        provenance: What is known about the artifact; by default the record of its build.
        process: A process for the fidelity that was started before.
        images: What the artifact is inspected with; by default the subject's.
        predictors: What predicts the evaluation images; by default both loaded here.
        pixel_predictors: What predicts pixels, where `predictors` look up what images give; by
            default the same.
        measurements: Those already taken, by name.
        unmeasurable: Why a measurement must not be taken here, by its name.
        tolerant: Whether an error while inspecting is a reason why a measurement is missing.
            Foreign files may contain anything; in an artifact that ptqbench built it is a defect.
        progress: Progress callback.
        phases: Where time is counted.
    """

    def __init__(
        self,
        subject: Subject,
        backend: Backend,
        artifact: Artifact,
        reference: FloatReference | FloatRivals,
        *,
        provenance: ArtifactProvenance | None = None,
        process: ReplayProcess | None = None,
        images: Tensor | None = None,
        predictors: Predictors | None = None,
        pixel_predictors: Predictors | None = None,
        measurements: Mapping[str, object] | None = None,
        unmeasurable: Mapping[str, str] | None = None,
        tolerant: bool = False,
        progress: Progress = silent,
        phases: Phases | None = None,
    ) -> None:
        self.subject = subject
        self.backend = backend
        self.artifact = artifact
        self._rivals = reference if isinstance(reference, FloatRivals) else None
        self.reference = reference.of(backend) if isinstance(reference, FloatRivals) else reference
        self.progress = progress
        self.phases = phases or Phases()
        self._provenance = provenance or build_provenance(subject, backend, artifact)
        self._process = process
        self._images = images
        self.predictors = predictors or loaded_predictors
        self.pixel_predictors = pixel_predictors or self.predictors
        self._tolerant = tolerant
        self._measurements: dict[str, Any] = dict(measurements or {})
        self._missing: dict[str, str] = dict(unmeasurable or {})

    @cached_property
    def int8(self) -> Model:
        """The artifact, loaded from its file."""
        with self.phases.measure("load int8"), self.step("Loading"):
            return self.artifact.load()

    @cached_property
    def opponent(self) -> Opponent:
        """The float32 model that int8 has to beat."""
        if self._rivals is None:
            return Opponent(self.reference, self.backend.runtime)
        return self._rivals.opponent(self.backend, self.subject.settings.baseline)

    @cached_property
    def inspection(self) -> ArtifactInspection:
        """The inspection of the artifact's contents."""
        images = self.subject.inspection_images() if self._images is None else self._images
        graph = self.reference.graph
        return ArtifactInspection(
            self._provenance,
            lambda images: self.int8(images),  # loaded when something has to be executed
            graph,
            images,
            self._process,
            self.phases,
            lambda images: self.pixel_predictors(self)[0](images),
        )

    def step(self, name: str) -> AbstractContextManager[None]:
        """Name a step in the sentence that an error of torch in it becomes."""
        model, backend = self.subject.recipe.model, self.backend.name
        return step(f"{name} of {model} and its int8 file on {backend}", _ADVICE)

    def slow_layers(self) -> str:
        """Name what the backend has no fast kernel for in the artifact; empty if nothing."""
        try:
            return self.backend.slow_layers(self.backend.layers(self.artifact.path))
        except Exception:
            if not self._tolerant:
                raise
            return ""  # the gates that look inside say what cannot be read

    def measurement(self, name: str) -> Any:
        """Return a measurement, taken now if necessary; None if it cannot be taken."""
        return self.evidence([name]).measurements.get(name)

    def evidence(self, names: Iterable[str]) -> Evidence:
        """Return what gates judge, with these measurements as far as they can be taken.

        Args:
            names: Of measurements.
        """
        names = tuple(dict.fromkeys(names))
        pending = [n for n in names if n not in self._measurements and n not in self._missing]
        for name in (name for name in MEASUREMENTS.names() if name in pending):
            try:
                self._measurements[name] = MEASUREMENTS.get(name)(self)
            except SimulationError as error:
                self._missing[name] = f"The file cannot be simulated: {error}."
        if inspections := [name for name in INSPECTIONS if name in pending]:
            self._inspect(inspections)
        for name in pending:
            if name not in self._measurements:
                self._missing.setdefault(name, f"Nothing is registered that measures {name}.")
        return Evidence(
            self.subject.thresholds,
            instruction_set(),
            {name: self._measurements[name] for name in names if name in self._measurements},
            {name: self._missing[name] for name in names if name in self._missing},
            kernels_for=self.backend.targets,
        )

    def judge(self, gates: Iterable[str] | None = None) -> CaseResult:
        """Put the case through gates, with the measurements that they need.

        Args:
            gates: Names; by default all.
        """
        chosen = gates_in_order() if gates is None else [GATES.get(name) for name in gates]
        if self._process is not None:
            self._process.ready()  # else it takes time from what is timed
        evidence = self.evidence(gate.measurement for gate in chosen)
        with self.phases.measure("judge"):
            results = evaluate(evidence, [gate.name for gate in chosen])
        measurements = evidence.measurements
        return CaseResult(
            model=self.subject.recipe.model,
            weights=self.subject.weights,
            backend=self.backend.name,
            data=self.subject.data.name,
            recipe=self.artifact.info.recipe_hash,
            metrics=metrics_of(*measurements.values()),
            gates=results,
            facts=self._facts(measurements),
            evidence=evidence,
        )

    def _inspect(self, names: list[str]) -> None:
        self.progress("look inside the file", 0, 0)
        with self.phases.measure("look inside"):
            result = self.inspection.measure(names, forgiving=self._tolerant)
        self._measurements |= result.measurements
        self._missing |= result.missing
        conversion = self._measurements.get("conversion")
        empty = conversion is not None and not (conversion.int8 or conversion.foreign)
        # "Nothing is left to fuse" would be true of nothing.
        if self._tolerant and empty and self._measurements.pop("fusion", None) is not None:
            self._missing["fusion"] = NOTHING_INT8

    def _facts(self, measurements: Mapping[str, Any]) -> dict[str, object]:
        info = self.artifact.info
        calibration = self.subject.data.calibration
        facts: dict[str, object] = {
            **self.subject.facts,
            "engine": self.backend.engine,
            "flow": info.flow,
            "calibration_images": info.calibration_images,
            **facts_of(*measurements.values()),
            **broken_facts("calibration", broken_in(calibration)),
            "alike_calibration_images": alike_in(calibration),
        }
        if "speed" in measurements:
            reference, opponent = self.reference, self.opponent
            if opponent.times_ms or opponent.skipped:
                facts["float32_runtimes_ms"] = dict(opponent.times_ms)
                facts["float32_runtimes_skipped"] = dict(opponent.skipped)
            facts |= macs_facts(reference.macs, measurements.get("conversion"))
            facts["float32_lowering"] = reference.lowering
            facts["float32_lowerings_ms"] = reference.times_ms
        return facts


_ADVICE = (
    "The file was traced on one image: its model must accept every batch size, and the size of "
    "the images as well as that of the latency (--input-size). Another backend may run it."
)
NOTHING_INT8 = "The file has no int8 layer, so nothing can be fused in int8."


def loaded_predictors(case: CaseEvaluation) -> tuple[Model, Model, ImageSet]:
    """Return `Predictors` that are loaded here, and the evaluation images."""
    return case.reference.predictor, case.int8, case.subject.data.evaluation


def probability_predictors(case: CaseEvaluation) -> tuple[Model, Model, ImageSet]:
    """Return `Predictors` for an int8 file that gives probabilities: float32 gives them too."""
    float32, int8, images = loaded_predictors(case)
    return as_probabilities(float32), int8, images


def unavailable_case(
    recipe: Recipe, backend: Backend, reason: str, settings: RunSettings
) -> CaseResult:
    """Build the result of a case that cannot run here: every gate is unverified, none is green.

    Args:
        recipe: Of the model.
        backend: The backend that is not available.
        reason: Why.
        settings: Weights, data and thresholds of the case.
    """
    weights = str(settings.of(recipe.model).weights)
    thresholds = recipe.thresholds_for(weights).replaced(settings.thresholds)
    evidence = Evidence(
        thresholds, instruction_set(), kernels_for=backend.targets, unavailable=reason
    )
    return CaseResult(
        model=recipe.model,
        weights=weights,
        backend=backend.name,
        data=settings.data,
        recipe=recipe.hash,
        metrics={},
        gates=evaluate(evidence),
        facts={"engine": backend.engine},
        evidence=evidence,
    )
