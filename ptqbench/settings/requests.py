"""What a command is asked to do, model by model: its options over the project's settings."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ptqbench.core.names import nearest, safe_file_name
from ptqbench.errors import UserError
from ptqbench.models.custom.importing import prepare
from ptqbench.settings.discovery import load
from ptqbench.settings.layers import COMMAND_LINE, RECIPE, Layer, Settings
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.schema import parse_table, parse_thresholds

_OPTIONS = {
    "plugin": "plugins",
    "recipe": "recipes",
    "backend": "backends",
    "weights": "weights",
    "data": "data",
    "limit": "limit",
    "broken_share": "broken_share",
    "workers": "workers",
    "input_size": "input_size",
    "batch_size": "batch_size",
    "threads": "threads",
    "seed": "seed",
    "max_bytes": "thresholds.max_bytes",
}
"""The setting that an option of the command line sets."""


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


def settings_of(args: argparse.Namespace, models: Sequence[str] = ()) -> Settings:
    """The settings that apply in the working folder, with the options over them.

    The models of a user's own that they name are registered.

    Args:
        args: Parsed command line; an option that was not given is None.
        models: Names or wildcards on the command line.

    Raises:
        UserError: The file with the settings is wrong, weights or data do not exist, or a
            module with models cannot be imported.
    """
    values: dict[str, object] = {}
    origins: dict[str, str] = {}

    def add(found: Mapping[str, object], option: str) -> None:
        values.update(found)
        origins.update(dict.fromkeys(found, option))

    if models:
        add(parse_table({"models": list(models)}, Path(), "the command line"), COMMAND_LINE)
    texts = getattr(args, "threshold", None)
    if texts:
        add(parse_thresholds(texts, "--threshold"), "--threshold")
    for name, setting in _OPTIONS.items():
        given = getattr(args, name, None)
        if given is not None:
            option = f"--{name.replace('_', '-')}"
            add(parse_table({setting: given}, Path(), option), option)
    settings = load(Path.cwd(), Layer(COMMAND_LINE, values, origins))
    prepare(settings)
    return settings


def case_requests(
    settings: Settings, overrides: Mapping[str, object], artifacts: str | None
) -> list[CaseRequest]:
    """Return a request for each chosen model.

    Args:
        settings: As they apply.
        overrides: Preprocessing and classes that take precedence over the weights' sidecar.
        artifacts: Folder that the artifacts are written to; None: a temporary one.

    Raises:
        UserError: An unknown model, or weights of one model that are set for several.
    """
    requests = []
    for model in settings.chosen_models():
        backends = settings.value("backends", model)
        case, origins = settings.case(model)
        case = replace(case, overrides=overrides, artifacts=artifacts)
        requests.append(CaseRequest(model, tuple(backends.value), backends.origin, case, origins))
    return requests


def one_backend(request: CaseRequest) -> str | None:
    """The one backend that somebody chose; None if only the recipe recommends one.

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
    """Names of the backends that are asked for.

    A wildcard asks for what there is, a name for what it names: where that backend cannot
    run, its gates are unverified.

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
