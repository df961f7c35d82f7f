"""Runs of models by name, as `ptqbench run` makes them."""

from __future__ import annotations

from collections.abc import Sequence

from ptqbench.core.phases import Phases
from ptqbench.evaluation.result import Report
from ptqbench.evaluation.run import run_requests
from ptqbench.recipes import RECIPES
from ptqbench.settings.requests import CaseRequest
from ptqbench.settings.run_settings import RunSettings


def run_models(
    models: Sequence[str],
    backends: Sequence[str],
    settings: RunSettings | None = None,
    phases: Phases | None = None,
) -> Report:
    """Evaluate models on backends."""
    settings = settings or RunSettings()
    requests = [
        CaseRequest(RECIPES.get(model).model, tuple(backends), "a test", settings)
        for model in models
    ]
    return run_requests(requests, phases=phases)
