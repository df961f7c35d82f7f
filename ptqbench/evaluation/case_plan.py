"""The cases of a run before anything is measured: models, backends and settings, checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.recipe import MEASURED
from ptqbench.settings.requests import CaseRequest, chosen_backends
from ptqbench.settings.run_settings import RunSettings

CaseKey = tuple[str, str]
"""A case of a run: the model, and the name of the backend or `MEASURED`."""


@dataclass(frozen=True)
class ModelPlan:
    """The cases of one model.

    Attributes:
        recipe: Of the model.
        settings: Of all its cases.
        backends: Names, in the order of the report; `MEASURED` stands for the fastest here.
    """

    recipe: Recipe
    settings: RunSettings
    backends: tuple[str, ...]

    @property
    def model(self) -> str:
        """Registered name of the model."""
        return self.recipe.model

    @property
    def keys(self) -> list[CaseKey]:
        """The cases, in the order of the report."""
        return [(self.model, name) for name in self.backends]

    @property
    def measurable(self) -> bool:
        """Whether there is a case that this machine can run."""
        return any(refusal(self.recipe, name) is None for name in self.backends)

    def without(self, finished: Collection[CaseKey]) -> ModelPlan:
        """Return the plan without finished cases."""
        return replace(
            self, backends=tuple(name for model, name in self.keys if (model, name) not in finished)
        )


def refusal(recipe: Recipe, backend: str) -> str | None:
    """Return why a backend cannot run a recipe here, None if it can."""
    return None if backend == MEASURED else BACKENDS.get(backend).refusal(recipe)


def target(backend: str) -> Backend | None:
    """Return the backend of a name; None for `MEASURED`."""
    return None if backend == MEASURED else BACKENDS.get(backend)


def plan_requests(requests: Sequence[CaseRequest]) -> list[ModelPlan]:
    """Look up everything that requests name.

    Args:
        requests: One per model.

    Raises:
        UserError: An unknown model or backend, or a wildcard that no usable backend matches.
    """
    known = {backend.name: backend.availability() for backend in BACKENDS}
    return [
        ModelPlan(
            RECIPES.get(request.model),
            request.settings.of(request.model),
            (MEASURED,)
            if MEASURED in request.backends
            else tuple(chosen_backends(request.backends, request.origin, known)),
        )
        for request in requests
    ]
