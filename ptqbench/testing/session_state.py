"""What the plugin knows during a test session; it is kept in ``config.stash``."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ptqbench.core.names import safe_file_name
from ptqbench.errors import UserError
from ptqbench.models.custom.importing import prepare
from ptqbench.recipes.recipe import MEASURED
from ptqbench.settings.discovery import load
from ptqbench.settings.layers import Layer, Settings, marker_layer, merged
from ptqbench.settings.requests import CaseRequest, chosen_backends
from ptqbench.settings.schema import REPORTS, parse_table, parse_thresholds

if TYPE_CHECKING:
    from ptqbench.evaluation.result import CaseResult
    from ptqbench.testing.benchmark_tracking import Baseline
    from ptqbench.testing.runner_protocol import CaseRunner

MARKER = "ptqbench"
REPORT_OPTION = "--ptqbench-report"


class State:
    """Settings, cases and records of a session, each made when it is first needed.

    Attributes:
        config: Of the session.
        settings: What is set.
        records: Verdicts so far, one record per test.
        machine: Facts about the machine that measured.
        notes: What else the summary shall say.
        baselines: What pytest-benchmark compares with.
        tracks_latency: Whether tests of latency were collected.
        regressions: How often a test failed for becoming slower.
        collected: Whether any test of a case was collected.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings: Settings = load(config.rootpath, command_line(config))
        self.records: list[CaseResult] = []
        self.machine: Mapping[str, object] = {}
        self.notes: list[str] = []
        self.baselines: list[Baseline] = []
        self.tracks_latency = False
        self.regressions = 0
        self.collected = False
        self.folder = self._session_folder()

    @property
    def worker_input(self) -> dict[str, Any] | None:
        """What pytest-xdist tells this worker; None in any other process."""
        found: dict[str, Any] | None = getattr(self.config, "workerinput", None)
        return found

    @property
    def workers(self) -> int:
        """How many processes run tests side by side."""
        return int(self.worker_input["workercount"]) if self.worker_input else 1

    @property
    def reports(self) -> dict[str, Path]:
        """Where reports are written, by format.

        What a file asks for is for sessions with gates; an option always counts.
        """
        found = {}
        for kind in REPORTS:
            value = self.settings.value(f"report.{kind}")
            if value.value is not None and (self.collected or value.origin == REPORT_OPTION):
                found[kind] = Path(value.value)
        return found

    @property
    def profile(self) -> str:
        """``local`` or ``ci``."""
        return str(self.settings.value("profile").value)

    def _session_folder(self) -> Path:
        if self.worker_input is not None and "ptqbench_folder" in self.worker_input:
            return Path(self.worker_input["ptqbench_folder"])
        # Only a name: the folder appears when the first artifact is made.
        return Path(tempfile.gettempdir()) / f"ptqbench-{uuid.uuid4().hex}"

    @cached_property
    def runner(self) -> CaseRunner:
        """Who judges the cases."""
        from ptqbench.testing.runner_protocol import make_runner

        runner = make_runner(self.config, self.folder, self.workers)
        self.machine = runner.machine()
        return runner

    @cached_property
    def cases(self) -> dict[str, tuple[str, str]]:
        """Model and backend of each case, by its name.

        Raises:
            UserError: An unknown model or backend, or a module with models of the user's own
                that cannot be imported.
        """
        prepare(self.settings)
        found = {}
        for model in self.settings.chosen_models():
            for backend in self._backends(model):
                found[f"{safe_file_name(model)}-{backend}"] = (model, backend)
        return found

    def _backends(self, model: str) -> list[str]:
        wanted = self.settings.value("backends", model)
        if MEASURED in wanted.value:
            # Measuring takes longer than collecting tests may.
            from ptqbench.backends.registry import default_backend

            return [default_backend()]
        return chosen_backends(wanted.value, wanted.origin, self.runner.backends())

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
        """Remove the session's folder; workers leave that to who started them."""
        if self.worker_input is None:
            shutil.rmtree(self.folder, ignore_errors=True)


STATE: pytest.StashKey[State] = pytest.StashKey()


def state_of(config: pytest.Config) -> State:
    """The state of a session."""
    return config.stash[STATE]


def marker_of(node: pytest.Item | pytest.Function) -> Layer | None:
    """The thresholds that markers on a test set; None without any.

    Raises:
        UserError: A marker has an unknown name or a wrong value.
    """
    layers = [
        marker_layer(marker.args, marker.kwargs, node.nodeid)
        for marker in node.iter_markers(MARKER)
    ]
    return merged(layers) if layers else None


def command_line(config: pytest.Config) -> Layer:
    """What the options say.

    Raises:
        UserError: An option's value is wrong.
    """
    get = config.getoption
    table: dict[str, object] = {}
    origins: dict[str, str] = {}

    def add(name: str, value: object, option: str) -> None:
        parsed = parse_table({name: value}, config.invocation_params.dir, option)
        table.update(parsed)
        origins.update(dict.fromkeys(parsed, option))

    for name in ("models", "backends"):
        if given := get(f"ptqbench_{name}"):
            names = [part for text in given for part in text.split(",")]
            add(name, names, f"--ptqbench-{name}")
    for name in ("weights", "data", "limit", "profile"):
        if (value := get(f"ptqbench_{name}")) is not None:
            add(name, value, f"--ptqbench-{name}")
    for text in get("ptqbench_report") or ():
        kind, equals, path = text.partition("=")
        if not equals or not path:
            raise UserError(f"{REPORT_OPTION} takes json=PATH or markdown=PATH, but got {text!r}.")
        add("report", {kind: path}, REPORT_OPTION)
    option = "--ptqbench-threshold"
    thresholds = parse_thresholds(get("ptqbench_threshold") or (), option)
    table.update(thresholds)
    origins.update(dict.fromkeys(thresholds, option))
    return Layer("command line", table, origins)
