"""Requests to evaluate a model on backends under settings."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ptqbench.core.names import nearest, safe_file_name
from ptqbench.errors import UserError
from ptqbench.settings.layers import RECIPE, Settings
from ptqbench.settings.run_settings import RunSettings


@dataclass(frozen=True)
class CaseRequest:
    """A request to evaluate one model.

    Attributes:
        model: Registered name.
        backends: Names or wildcards.
        origin: Who chose the backends.
        settings: Everything else that is set for the model.
        threshold_origins: Who set a threshold, by dotted name without ``thresholds.``.
    """

    model: str
    backends: tuple[str, ...]
    origin: str
    settings: RunSettings = field(default_factory=RunSettings)
    threshold_origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def backend(self) -> str:
        """The backend of a request that names exactly one.

        Raises:
            ValueError: The request names several.
        """
        (name,) = self.backends
        return name

    @property
    def name(self) -> str:
        """Name of the case in test ids: ``resnet18-x86``."""
        return f"{safe_file_name(self.model)}-{self.backend}"


def case_requests(settings: Settings, artifacts: str | None = None) -> list[CaseRequest]:
    """Return a request for each chosen model.

    Args:
        settings: As they apply.
        artifacts: Folder that the artifacts are written to; None: a temporary one.

    Raises:
        UserError: An unknown model, weights of one model that are set for several, or two models
            whose artifacts would have the same name.
    """
    if artifacts is not None:
        _check_file_names(settings.chosen_models())
    requests = []
    for model in settings.chosen_models():
        backends = settings.value("backends", model)
        case, origins = settings.case(model)
        case = replace(case, artifacts=artifacts)
        requests.append(CaseRequest(model, tuple(backends.value), backends.origin, case, origins))
    return requests


def _check_file_names(models: Sequence[str]) -> None:
    """Check that no two models share the name of their artifacts."""
    by_name: dict[str, str] = {}
    for model in models:
        other = by_name.setdefault(safe_file_name(model), model)
        if other != model:
            raise UserError(
                f"The artifacts of {other} and {model} would have the same name, "
                f"{safe_file_name(model)}-….int8.pt. Run the models one at a time, each with its "
                "own folder for --artifacts."
            )


def one_backend(request: CaseRequest) -> str | None:
    """Return the one backend that was chosen; None if only the recipe recommends one.

    Raises:
        UserError: Several are chosen.
    """
    if request.origin == RECIPE:
        return None
    if len(request.backends) != 1 or any(sign in request.backends[0] for sign in "*?["):
        raise UserError(
            f"{request.origin} chooses {', '.join(request.backends)}, but a file is judged for one "
            "backend. Name it with --backend."
        )
    return request.backends[0]


def chosen_backends(
    patterns: Sequence[str], origin: str, known: Mapping[str, str | None]
) -> list[str]:
    """Return the names of the backends that patterns choose.

    A wildcard chooses among the backends that can run here. A name chooses its backend in any
    case: if it cannot run, its gates are unverified.

    Args:
        patterns: Names or wildcards.
        origin: Who chose them, for messages.
        known: Registered backends: None, or why the backend cannot run here.

    Raises:
        UserError: A name or wildcard matches nothing, or nothing that can run here.
    """
    chosen: list[str] = []
    for pattern in patterns:
        fitting = [n for n in known if fnmatch.fnmatchcase(n, pattern) and known[n] is None]
        if pattern in known:
            fitting = [pattern]
        elif not fnmatch.filter(known, pattern):
            raise UserError(
                f"{origin}: Unknown backend {pattern!r}. {nearest(pattern, list(known))}"
            )
        elif not fitting:
            raise UserError(f"{origin}: no backend that {pattern!r} matches can run here.")
        chosen += fitting
    return list(dict.fromkeys(chosen))
