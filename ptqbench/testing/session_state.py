"""The state of a test session, stored in ``config.stash``."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ptqbench.core.atomic import check_writable
from ptqbench.core.names import safe_file_name
from ptqbench.core.paths import exists, is_dir, user_path
from ptqbench.errors import UserError
from ptqbench.models.custom.importing import prepare
from ptqbench.recipes.recipe import MEASURED
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.settings.discovery import check_owner, check_paths, load
from ptqbench.settings.layers import Layer, Settings, marker_layer, merged
from ptqbench.settings.requests import CaseRequest, chosen_backends
from ptqbench.settings.schema import REPORTS
from ptqbench.testing.options import CONFIG_OPTION, REPORT_OPTION, command_line

if TYPE_CHECKING:
    from ptqbench.evaluation.result import CaseResult
    from ptqbench.testing.benchmark_tracking import Baseline
    from ptqbench.testing.runner_protocol import CaseRunner

MARKER = "ptqbench"


class State:
    """Settings, cases and records of a session, each created when it is first needed.

    Attributes:
        config: Of the session.
        settings: As they apply in the root folder.
        records: Verdicts so far, one record per test.
        machine: Facts about the machine that measured.
        notes: Further sentences for the summary.
        baselines: Runs that pytest-benchmark compares with.
        tracks_latency: Whether tests of latency were collected.
        regressions: Number of tests that failed for becoming slower.
        collected: Whether any test of a case was collected.

    Raises:
        UserError: The settings are wrong. Paths in their file are checked when the first case
            is collected: a session without one does not need them.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings = self._load()
        self.records: list[CaseResult] = []
        self.machine: Mapping[str, object] = {}
        self.notes: list[str] = []
        self.baselines: list[Baseline] = []
        self.tracks_latency = False
        self.regressions = 0
        self.collected = False
        self.folder = self._session_folder()

    def _load(self) -> Settings:
        file = self.config.getoption("ptqbench_config")
        return load(
            self.config.rootpath,
            CATALOG,
            command_line(self.config),
            file=None if file is None else self.config.invocation_params.dir / user_path(file),
            file_option=CONFIG_OPTION,
        )

    def check_options(self) -> None:
        """Check the paths that options name.

        Raises:
            UserError: One does not exist or cannot be written, or there is no folder of
                references to update.
        """
        check_paths(replace(self.settings, models=(), general=Layer("file")))
        for path in self.reports.values():
            check_writable(path)
        update = self.config.getoption("ptqbench_update")
        if update and self.settings.value("baselines").value is None:
            raise UserError(
                "--ptqbench-update needs the folder of the references. Set `baselines` in "
                "[tool.ptqbench] to it."
            )

    def _check_file(self) -> None:
        """Check the owner of the file with the settings, and the paths that it names.

        Raises:
            UserError: A path does not exist or cannot be written, or the file belongs to another
                user and names code to run.
        """
        file = self.settings.file
        # pytest itself runs what is in the root folder.
        inside = file is not None and file.parent == self.config.rootpath
        if not inside and not self.config.getoption("ptqbench_config"):
            check_owner(self.settings, CONFIG_OPTION)
        check_paths(self.settings)
        for kind in REPORTS:
            if (path := self.settings.value(f"report.{kind}").value) is not None:
                check_writable(path)
        baselines = self.settings.value("baselines")
        if baselines.value is not None and exists(baselines.value) and not is_dir(baselines.value):
            raise UserError(f"baselines ({baselines.origin}): {baselines.value} is not a folder.")

    @property
    def worker_input(self) -> dict[str, Any] | None:
        """The input of this worker of pytest-xdist; None in any other process."""
        worker_input: dict[str, Any] | None = getattr(self.config, "workerinput", None)
        return worker_input

    @property
    def workers(self) -> int:
        """Number of processes that run tests at the same time."""
        return int(self.worker_input["workercount"]) if self.worker_input else 1

    @property
    def reports(self) -> dict[str, Path]:
        """Where reports are written, by format.

        Reports that the file sets are for sessions with gates; an option always counts.
        """
        reports = {}
        for kind in REPORTS:
            value = self.settings.value(f"report.{kind}")
            if value.value is not None and (self.collected or value.origin == REPORT_OPTION):
                reports[kind] = Path(value.value)
        return reports

    @property
    def profile(self) -> str:
        """``local`` or ``ci``."""
        return str(self.settings.value("profile").value)

    def _session_folder(self) -> Path:
        if self.worker_input is not None and "ptqbench_folder" in self.worker_input:
            return Path(self.worker_input["ptqbench_folder"])
        # Only a path: the folder is created with the first artifact.
        return Path(tempfile.gettempdir()) / f"ptqbench-{uuid.uuid4().hex}"

    @cached_property
    def runner(self) -> CaseRunner:
        """Judges the cases."""
        from ptqbench.testing.runner_protocol import make_runner

        runner = make_runner(self.config, self.folder, self.workers)
        self.machine = runner.machine()
        return runner

    @cached_property
    def cases(self) -> dict[str, tuple[str, str]]:
        """Model and backend of each case, by its name.

        Raises:
            UserError: A path in the settings is wrong, a model or backend is unknown, or a
                module with custom models cannot be imported.
        """
        self._check_file()
        prepare(self.settings)
        pairs = [
            (model, backend)
            for model in self.settings.chosen_models()
            for backend in self._backends(model)
        ]
        return {name: pair for name, pair in zip(case_names(pairs), pairs, strict=True)}

    def _backends(self, model: str) -> list[str]:
        chosen = self.settings.value("backends", model)
        if MEASURED in chosen.value:
            # Measuring takes longer than collecting tests may.
            from ptqbench.backends.backend_registry import default_backend

            return [default_backend()]
        return chosen_backends(chosen.value, chosen.origin, self.runner.backends())

    def request(self, name: str, marker: Layer | None = None) -> CaseRequest:
        """Return the request for a case.

        Args:
            name: Of the case.
            marker: Thresholds set by a marker on the test.
        """
        model, backend = self.cases[name]
        settings, origins = self.settings.case(model, marker)
        chosen = self.settings.value("backends", model)
        return CaseRequest(model, (backend,), chosen.origin, settings, origins)

    def clean_up(self) -> None:
        """Remove the session's folder; workers leave that to the process that started them."""
        if self.worker_input is None:
            shutil.rmtree(self.folder, ignore_errors=True)


def case_names(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a name for each case that tests and their ids can contain, no two alike.

    ``resnet18-x86``; models whose names differ only in characters that an id cannot contain
    are distinguished by a hash.

    Args:
        pairs: Model and backend of each case.
    """
    models = dict.fromkeys(model for model, _ in pairs)
    plain = Counter(safe_file_name(model) for model in models)
    names = {}
    for model in models:
        names[model] = safe_file_name(model)
        if plain[names[model]] > 1 and names[model] != model:
            names[model] += f"~{hashlib.sha256(model.encode()).hexdigest()[:6]}"
    return [f"{names[model]}-{backend}" for model, backend in pairs]


STATE: pytest.StashKey[State] = pytest.StashKey()


def state_of(config: pytest.Config) -> State:
    """Return the state of a session."""
    return config.stash[STATE]


def marker_of(node: pytest.Item | pytest.Function) -> Layer | None:
    """Return the thresholds that markers on a test set; None without any.

    Raises:
        UserError: A marker has an unknown name or a wrong value.
    """
    layers = [
        marker_layer(marker.args, marker.kwargs, node.nodeid)
        for marker in node.iter_markers(MARKER)
    ]
    return merged(layers) if layers else None
