"""The run: named models through build, measurement and gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend_registry import BACKENDS, default_backend
from ptqbench.backends.process_state import process_unchanged
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, prefixed, silent
from ptqbench.errors import UserError
from ptqbench.evaluation.backend_choice import choose_backend
from ptqbench.evaluation.case import CaseEvaluation, unavailable_case
from ptqbench.evaluation.case_plan import CaseKey, ModelPlan, plan_requests, refusal
from ptqbench.evaluation.float_rivals import FloatRivals
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.open_subject import open_subject
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.evaluation.resume import ResultFolder
from ptqbench.evaluation.subject import Subject, shown_settings
from ptqbench.measurement.replay import ReplayProcess
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.recipes.recipe import MEASURED
from ptqbench.settings.requests import CaseRequest
from ptqbench.weights.open_weights import provide

Conclude = Callable[[Subject, FloatRivals, Mapping[str, Artifact], Mapping[str, CaseResult]], None]
"""Takes the subject of a plan, its float32 side, its int8 files, which are removed afterwards, and
their cases, by backend."""
Finish = Callable[[str, CaseResult], None]
"""Takes the backend of a plan and the result of its case, as soon as the case has ended."""


@process_unchanged()
def run_requests(
    requests: Sequence[CaseRequest],
    progress: Progress = silent,
    phases: Phases | None = None,
    fresh: ReplayProcess | None = None,
    results: ResultFolder | None = None,
    conclude: Conclude | None = None,
) -> Report:
    """Evaluate the requested cases, model by model.

    Args:
        requests: One per model.
        progress: Progress callback.
        phases: Where time is counted.
        fresh: For the first artifact; the others start one of their own.
        results: Finished cases, which are not measured again; the others are added.
        conclude: Called for each model when its cases have ended.

    Raises:
        UserError: An unknown name, weights that do not fit, data that cannot be read, …
            Names are checked before anything is measured.
    """
    phases = phases or Phases()
    plans = plan_requests(requests)
    cases: dict[CaseKey, CaseResult] = {}
    if results is not None:
        results.restore(plans)
        cases |= results.finished
    pending = [left for plan in plans if (left := plan.without(cases)).backends]
    check_weights(pending, progress, phases)
    spare = [fresh] if fresh else []
    for plan in pending:
        torch.set_num_threads(plan.settings.threads or physical_cores())

        def finish(backend: str, case: CaseResult, plan: ModelPlan = plan) -> None:
            cases[plan.model, backend] = case
            if results is not None:
                results.write((plan.model, backend), report_of(case, plan))

        _run_model(plan, progress, phases, spare, finish, conclude)
    return assembled(plans, cases)


def check_weights(plans: Sequence[ModelPlan], progress: Progress, phases: Phases) -> None:
    """Check the published weights of all models before the first is measured.

    Raises:
        UserError: There are no such weights, or they cannot be downloaded.
    """
    with phases.measure("load weights"):
        for plan in plans:
            if plan.measurable:
                provide(MODELS.get(plan.model), str(plan.settings.weights), progress)


def report_of(case: CaseResult, plan: ModelPlan) -> Report:
    """Return the report of a case alone."""
    return Report(machine_facts(), (case,), shown_settings(plan.settings))


def assembled(plans: Sequence[ModelPlan], cases: Mapping[CaseKey, CaseResult]) -> Report:
    """Return the report of all cases, in the order of the plans."""
    shown = {plan.model: shown_settings(plan.settings) for plan in plans}
    ordered = tuple(cases[key] for plan in plans for key in plan.keys)
    return Report(machine_facts(), ordered, _together(shown))


def _together(settings: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """Settings of several models: what they share, and what differs by model."""
    first = next(iter(settings.values()), {})
    shared = {
        name: value
        for name, value in first.items()
        if all(each[name] == value for each in settings.values())
    }
    per_model = {
        model: {name: value for name, value in each.items() if name not in shared}
        for model, each in settings.items()
    }
    return {**shared, "models": per_model} if any(per_model.values()) else shared


def _run_model(
    plan: ModelPlan,
    progress: Progress,
    phases: Phases,
    spare: list[ReplayProcess],
    finish: Finish,
    conclude: Conclude | None,
) -> None:
    """Evaluate all cases of one model; those of a runtime share the float32 side."""
    recipe = plan.recipe
    calibrations = CalibrationCache() if len(plan.backends) > 1 else None
    with ExitStack() as stack:
        subject = None
        rivals = None
        artifacts: dict[str, Artifact] = {}
        results: dict[str, CaseResult] = {}
        errors: list[UserError] = []
        for name in plan.backends:
            if reason := refusal(recipe, name):
                finish(name, unavailable_case(recipe, BACKENDS.get(name), reason, plan.settings))
                continue
            with spare.pop() if spare else ReplayProcess() as process:
                if subject is None:
                    subject = open_subject(recipe, plan.settings, stack, progress, phases)
                if rivals is None:
                    rivals = FloatRivals.of_subject(subject, phases)
                target = BACKENDS.get(default_backend() if name == MEASURED else name)
                reference = rivals.of(target)
                chosen, judged, artifact = name, subject, None
                if name == MEASURED:
                    choice = choose_backend(
                        subject, phases, reference, progress=prefixed(progress, recipe.model)
                    )
                    judged = subject.with_note(choice.sentence(recipe.model))
                    chosen, artifact = choice.backend, choice.artifact
                backend = BACKENDS.get(chosen)
                report = prefixed(progress, f"{recipe.model} on {chosen}")
                try:
                    if artifact is None:
                        report("quantize", 0, 0)
                        artifact = build_int8(
                            judged, backend, phases, calibrations=calibrations, progress=report
                        )
                    case = CaseEvaluation(
                        judged,
                        backend,
                        artifact,
                        rivals,
                        process=process,
                        progress=report,
                        phases=phases,
                    ).judge()
                except UserError as error:
                    errors.append(error)
                    finish(name, unavailable_case(recipe, backend, str(error), plan.settings))
                    continue
                report(case.verdict.value, 1, 1)
                finish(name, case)
                artifacts[chosen], results[chosen] = artifact, case
        if errors and not artifacts:
            raise errors[0]
        if conclude is not None and subject is not None and rivals is not None:
            conclude(subject, rivals, artifacts, results)
