"""The measurements of a case that do not look inside its artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from ptqbench.backends.backend import Model
from ptqbench.backends.cpu import instruction_set
from ptqbench.core.registry import Registry
from ptqbench.evaluation.subject import BATCH_SIZE
from ptqbench.gates.parity import parity_verdict
from ptqbench.gates.stopping import stopping_rule
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.accuracy import measure_accuracy
from ptqbench.measurement.accuracy_record import Accuracy
from ptqbench.measurement.parity import Parity, measure_parity
from ptqbench.measurement.size import Size, measure_size
from ptqbench.measurement.speed import Speed, measure_speed
from ptqbench.settings.thresholds import PARITY

if TYPE_CHECKING:
    from ptqbench.evaluation.case import CaseEvaluation

Measure: TypeAlias = "Callable[[CaseEvaluation], object]"

MEASUREMENTS: Registry[Measure] = Registry("measurement")
"""Functions that take the measurements which do not look inside the artifact, in that order."""


def measure_predictions(case: CaseEvaluation) -> Accuracy:
    """Measure accuracy on the evaluation images."""
    case.progress("load both models", 0, 0)
    float32, int8, images = case.predictors(case)
    with case.step("Evaluation"):
        return measure_accuracy(
            float32,
            int8,
            images,
            batch_size=BATCH_SIZE,
            stop_when=stopping_rule(case.subject.thresholds),
            progress=case.progress,
            phases=case.phases,
        )


def measure_speedup(case: CaseEvaluation) -> Speed:
    """Measure the speedup over the fastest float32 lowering."""
    times_ms, opponent = case.reference.times_ms, case.opponent
    with case.phases.measure("load int8"):
        # Loaded anew: oneDNN keeps the primitives of the first input shape that a model sees
        # and is much slower on every other one.
        int8 = case.artifact.load()
    latency, here, targets = case.subject.latency, instruction_set(), case.backend.targets
    thresholds = case.subject.thresholds.speedup
    threshold = thresholds.get(here) if not targets or here in targets else None

    def against(float32: Model, threshold: float | None) -> Speed:
        with case.phases.measure("speed pairs", forward=True), case.step("Timing"):
            return measure_speed(
                float32,
                int8,
                latency.example(),
                threads=latency.threads,
                threshold=threshold,
                progress=case.progress,
                float32_plain_ms=times_ms["eager"],
            )

    speed = against(case.reference.fastest, threshold)
    if opponent.reference is not case.reference:
        same, speed = speed, against(opponent.model, PARITY)
        speed = replace(
            speed,
            opponent=opponent.runtime,
            same_runtime=same.speedup,
            same_runtime_ms=same.float32_ms,
        )
    if speed.speedup.low >= (threshold or 1.0):
        return speed
    with case.phases.measure("look inside"):
        return replace(speed, cause=case.slow_layers())


def measure_files(case: CaseEvaluation) -> Size:
    """Measure the sizes of both artifacts."""
    return measure_size(case.reference.artifact.files, case.artifact.files)


def measure_simulation(case: CaseEvaluation) -> Parity:
    """Measure what the kernels do to what the file says."""
    float32, int8, images = case.pixel_predictors(case)
    with case.phases.measure("simulate the kernels", forward=True):
        return measure_parity(
            float32,
            int8,
            case.artifact.simulation(),
            images,
            stop_when=lambda parity: (
                parity_verdict(parity, case.subject.thresholds) is not Verdict.INCONCLUSIVE
            ),
            progress=case.progress,
        )


MEASUREMENTS.add("accuracy", measure_predictions)
MEASUREMENTS.add("speed", measure_speedup)
MEASUREMENTS.add("size", measure_files)
MEASUREMENTS.add("parity", measure_simulation)
