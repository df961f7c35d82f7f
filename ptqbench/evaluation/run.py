"""The run: named models through build, measurement and gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch

from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.process_state import process_unchanged
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.package_data import SHIPPED
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, prefixed, silent
from ptqbench.errors import UserError
from ptqbench.evaluation.backend_choice import choose_backend
from ptqbench.evaluation.case import CaseEvaluation, unavailable_case
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.open_subject import open_subject
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.evaluation.subject import shown_settings
from ptqbench.measurement.replay import ReplayProcess
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.recipe import MEASURED
from ptqbench.settings.requests import CaseRequest, chosen_backends
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.weights_specifier import is_source_name
from ptqbench.weights.load import check_published


def run(
    models: Sequence[str] = (),
    backends: Sequence[str] | None = None,
    settings: RunSettings | None = None,
    progress: Progress = silent,
    phases: Phases | None = None,
) -> Report:
    """Quantize models for backends and judge every artifact.

    Args:
        models: Names or wildcards; empty: every model with shipped weights.
        backends: Names; None: the one that each recipe recommends.
        settings: Everything else.
        progress: Told how far the work is.
        phases: Where time is counted.

    Raises:
        UserError: An unknown name, weights that do not fit, data that cannot be read, …
            Names are checked before anything is measured.
    """
    settings = settings or RunSettings()
    names = MODELS.match(*models) if models else list(SHIPPED)
    recipes = [RECIPES.get(name) for name in names]
    chosen = tuple(dict.fromkeys(backends or ()))
    for name in chosen:
        BACKENDS.get(name)
    if settings.weights and not is_source_name(settings.weights) and len(recipes) > 1:
        raise UserError(
            f"--weights {settings.weights} belongs to one model, but {len(recipes)} are named "
            f"({', '.join(names)}). Name the one that it is for."
        )
    requests = [
        CaseRequest(each.model, chosen or (each.backend,), "backends", settings) for each in recipes
    ]
    return run_requests(requests, progress, phases)


@process_unchanged()
def run_requests(
    requests: Sequence[CaseRequest],
    progress: Progress = silent,
    phases: Phases | None = None,
    fresh: ReplayProcess | None = None,
) -> Report:
    """Evaluate the requested cases, model by model.

    Args:
        requests: One per model.
        progress: Told how far the work is.
        phases: Where time is counted.
        fresh: For the first artifact; the others start one of their own.

    Raises:
        UserError: As `run` does. Names are checked before anything is measured.
    """
    phases = phases or Phases()
    known = {backend.name: backend.availability() for backend in BACKENDS}
    planned = [
        (
            RECIPES.get(request.model),
            _planned(request, known),
            request.settings.of(request.model),
        )
        for request in requests
    ]
    with phases.measure("load weights"):
        for recipe, backends, settings in planned:
            if backends and all(backend.refusal(recipe) for backend in backends):
                continue
            check_published(MODELS.get(recipe.model), str(settings.weights), progress)
    cases: list[CaseResult] = []
    spare = [fresh] if fresh else []
    for recipe, backends, settings in planned:
        torch.set_num_threads(settings.threads or physical_cores())
        cases += _run_model(recipe, backends, settings, progress, phases, spare)
    shown = {recipe.model: shown_settings(settings) for recipe, _, settings in planned}
    return Report(machine_facts(), tuple(cases), _together(shown))


def _planned(request: CaseRequest, known: Mapping[str, str | None]) -> list[Backend]:
    """Backends of the request; none if the fastest is to be determined by measuring."""
    if MEASURED in request.backends:
        return []
    return [BACKENDS.get(n) for n in chosen_backends(request.backends, request.origin, known)]


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
    recipe: Recipe,
    backends: Sequence[Backend],
    settings: RunSettings,
    progress: Progress,
    phases: Phases,
    spare: list[ReplayProcess],
) -> list[CaseResult]:
    """All cases of one model; the float32 side is shared by all of them.

    Without backends there is one case, for the one that is the fastest here.
    """
    cases: list[CaseResult] = []
    calibrations = CalibrationCache() if len(backends) != 1 else None
    with ExitStack() as stack:
        subject = None
        reference = None
        if not backends:
            subject = open_subject(recipe, settings, stack, progress, phases)
            choice = choose_backend(subject, phases, calibrations)
            subject = subject.with_note(choice.sentence(recipe.model))
            backends = [BACKENDS.get(choice.backend)]
        for backend in backends:
            if reason := backend.refusal(recipe):
                cases.append(unavailable_case(recipe, backend, reason, settings))
                continue
            with spare.pop() if spare else ReplayProcess() as process:
                if subject is None:
                    subject = open_subject(recipe, settings, stack, progress, phases)
                if reference is None:
                    reference = FloatReference(subject, backend, phases)
                report = prefixed(progress, f"{recipe.model} on {backend.name}")
                report("quantize", 0, 0)
                artifact = build_int8(subject, backend, phases, calibrations=calibrations)
                evaluation = CaseEvaluation(
                    subject,
                    backend,
                    artifact,
                    reference,
                    process=process,
                    progress=report,
                    phases=phases,
                )
                case = evaluation.judge()
                report(case.verdict.value, 1, 1)
                cases.append(case)
    return cases
