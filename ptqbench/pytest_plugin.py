"""The pytest plugin: options, the marker ``ptqbench``, fixtures, and verdicts as outcomes.

It does nothing in a session without a test of a case, and imports torch only for one that has
such a test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ptqbench.errors import UserError
from ptqbench.testing.hookspec import Hooks
from ptqbench.testing.options import add_options
from ptqbench.testing.session_state import MARKER, STATE, State, marker_of, state_of

if TYPE_CHECKING:
    from ptqbench.settings.requests import CaseRequest

pytest_plugins = ["ptqbench.testing.benchmark_tracking"]

_CASE = "ptqbench_case"


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hook that replaces the runner of cases."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings; mistakes in them and in options are reported before anything runs."""
    from ptqbench.settings.schema import threshold_names

    arguments = ", ".join(f"{name}=..." for name in threshold_names())
    config.addinivalue_line(
        "markers", f"{MARKER}({arguments}): thresholds of ptqbench's gates for this test"
    )
    try:
        state = State(config)
        state.check_options()
    except UserError as error:
        raise pytest.UsageError(f"ptqbench: {error}") from None
    config.stash[STATE] = state


def pytest_pycollect_makeitem(collector: pytest.Collector, obj: object) -> list[pytest.Item] | None:
    """Skip collection of a test if the setting that it needs is not configured."""
    setting = getattr(obj, "ptqbench_setting", None) if inspect.isfunction(obj) else None
    if setting is None or state_of(collector.config).settings.value(setting).value is not None:
        return None
    return []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize over cases, and refuse markers that are wrong."""
    try:
        marker_of(metafunc.definition)
        if _CASE in metafunc.fixturenames:
            state_of(metafunc.config).collected = True
            names = list(state_of(metafunc.config).cases)
            # Session scope groups the tests by case: the inputs of a case are opened once.
            metafunc.parametrize(_CASE, names, ids=names, scope="session", indirect=True)
    except UserError as error:
        raise pytest.Collector.CollectError(f"ptqbench: {error}") from None


@pytest.fixture(scope="session")
def ptqbench_case(request: pytest.FixtureRequest) -> str:
    """Name of the case under test: ``resnet18-x86``. A test that uses it runs for each case."""
    return str(request.param)


@pytest.fixture
def ptqbench_settings(request: pytest.FixtureRequest, ptqbench_case: str) -> CaseRequest:
    """The case under test: model, backend, settings and thresholds."""
    state = state_of(request.config)
    return state.request(ptqbench_case, marker_of(request.node))


@pytest.fixture
def ptqbench_gate(
    request: pytest.FixtureRequest, ptqbench_settings: CaseRequest
) -> Callable[[str], None]:
    """A function that takes the name of a gate and turns its verdict into the test's outcome.

    A pass passes, a fail fails. Inconclusive and unverified fail under the profile ``ci``
    and are skipped under ``local``; they never pass.
    """
    state = state_of(request.config)

    def check(gate: str) -> None:
        __tracebackhide__ = True
        from ptqbench.testing.outcomes import judge_and_record, settle

        message, verdict = judge_and_record(state, ptqbench_settings, gate)
        settle(message, verdict, state.profile)

    return check


@pytest.fixture
def ptqbench_reference(
    request: pytest.FixtureRequest, ptqbench_settings: CaseRequest
) -> Callable[[], None]:
    """A function that compares the case with its committed reference.

    The references are one JSON file per model in the folder of the setting ``baselines``. With
    ``--ptqbench-update`` they are rewritten.
    """
    state = state_of(request.config)

    def check() -> None:
        __tracebackhide__ = True
        from ptqbench.testing.outcomes import check_reference

        check_reference(state, ptqbench_settings, update=state.config.getoption("ptqbench_update"))

    return check


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass a pytest-xdist worker the folder that it shares with the others."""
    node.workerinput["ptqbench_folder"] = str(state_of(node.config).folder)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over the results of a pytest-xdist worker."""
    sent = getattr(node, "workeroutput", {}).get("ptqbench")
    if sent is not None:
        from ptqbench.testing.outcomes import receive

        receive(state_of(node.config), sent)
    elif error:
        state_of(node.config).notes.append(
            f"The pytest-xdist worker {node.gateway.id} ended early; its verdicts are missing."
        )


def _unused(state: State | None) -> bool:
    """Whether the session had nothing to do with ptqbench, so that nothing is shown."""
    return state is None or not (state.records or state.notes or state.reports)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the records over, or write the reports."""
    state = session.config.stash.get(STATE, None)
    if state is None or session.config.getoption("collectonly"):
        return
    if state.worker_input is not None:
        if state.collected:
            from ptqbench.testing.outcomes import send

            session.config.workeroutput["ptqbench"] = send(state)  # type: ignore[attr-defined]
    elif not _unused(state):
        from ptqbench.testing.outcomes import write_reports

        if not write_reports(state) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """List every verdict that is not a pass; it never raises."""
    state = config.stash.get(STATE, None)
    if state is None or _unused(state) or config.getoption("collectonly"):
        return
    try:
        from ptqbench.testing.records import summary

        # A session of references alone judges nothing.
        judged = state.records or not state.notes
        lines = [*(summary(state.records, state.profile) if judged else ()), *state.notes]
    except Exception as error:
        lines = [f"The summary could not be written: {type(error).__name__}: {error}"]
    terminalreporter.section("ptqbench")
    for line in lines:
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the artifacts of the session."""
    state = config.stash.get(STATE, None)
    if state is not None:
        state.clean_up()
