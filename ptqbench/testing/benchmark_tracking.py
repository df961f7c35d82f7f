"""Latency tracking with pytest-benchmark: settings for models, and refusal of empty comparisons.

pytest-benchmark compares only what the baseline contains, warns if the baseline is missing or
from another machine, and measures nothing alongside other workers, all with a green result. It
reports what became slower in a traceback that is not the failure of a test. For tests that use
``ptqbench_latency`` each of these is an error, the first ones before anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from ptqbench.core.names import first_few, nearest
from ptqbench.core.significant import significant
from ptqbench.errors import UserError
from ptqbench.testing.session_state import STATE, State, state_of

if TYPE_CHECKING:
    from ptqbench.settings.requests import CaseRequest

FIXTURE = "ptqbench_latency"
PRECISIONS = ("float32", "int8")
"""Artifacts whose latency can be measured."""
FACTS = "ptqbench"
"""Key of our facts in pytest-benchmark's ``machine_info``."""

DECISIVE = ("cpu", "instruction_set", "physical_cores", "cpu_quota", "threads")
"""Facts without which times of two machines have nothing to do with each other."""


@dataclass(frozen=True)
class Baseline:
    """A run that pytest-benchmark saved.

    Attributes:
        machine: Our facts about its machine; empty if it has none.
        benchmarks: Statistics of its benchmarks by full name, in s.
    """

    machine: Mapping[str, object]
    benchmarks: Mapping[str, Mapping[str, float]]


def problem(
    names: Iterable[str],
    machine: Mapping[str, object],
    baselines: list[Baseline],
    *,
    compare: bool,
    compare_fail: bool,
    measuring: bool = True,
) -> str | None:
    """Return why a comparison would be meaningless; None if it is meaningful.

    Args:
        names: Full names of the benchmarks that are about to run.
        machine: Our facts about this machine.
        baselines: What they would be compared with.
        compare: Whether ``--benchmark-compare`` is set.
        compare_fail: Whether ``--benchmark-compare-fail`` is set.
        measuring: Whether benchmarks are measured, and neither disabled nor skipped.
    """
    if not compare:
        if compare_fail:
            return "--benchmark-compare-fail compares with nothing. Add --benchmark-compare."
        return None
    if not measuring:
        return (
            "--benchmark-compare compares what is measured, but --benchmark-disable or "
            "--benchmark-skip leaves nothing to compare. Use one or the other."
        )
    if not baselines:
        return (
            "--benchmark-compare finds no saved run to compare with. Record one with "
            "--benchmark-autosave on this machine, or name one that exists."
        )
    for baseline in baselines:
        if not baseline.machine:
            return "The saved run does not say on which machine it was measured. Record a new one."
        other = [
            f"{key} {baseline.machine.get(key)} (now {machine.get(key)})"
            for key in DECISIVE
            if baseline.machine.get(key) != machine.get(key)
        ]
        if other:
            return (
                f"The saved run is of another machine: {', '.join(other)}. Times of two machines "
                "cannot be compared. Record a run here with --benchmark-autosave."
            )
        absent = [name for name in names if name not in baseline.benchmarks]
        if absent:
            return (
                f"{len(absent)} benchmarks are not in the saved run and would not be compared: "
                f"{first_few(absent)}. Record a new run with --benchmark-autosave, or leave "
                "them out with -k."
            )
    return None


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, compared_benchmark: dict[str, Any]
) -> None:
    """Save what is compared with, without the facts on the machine, which are not known yet."""
    state = config.stash.get(STATE, None)
    if state is not None:
        machine = compared_benchmark["machine_info"].pop(FACTS, {})
        saved = {bench["fullname"]: bench["stats"] for bench in compared_benchmark["benchmarks"]}
        state.baselines.append(Baseline(machine, saved))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Add engines, threads, instruction set and torch to what is saved."""
    state = config.stash.get(STATE, None)
    if state is not None and state.tracks_latency:
        machine_info[FACTS] = machine_facts(state)


def machine_facts(state: State) -> dict[str, object]:
    """Describe this machine, with the threads that models run on."""
    facts = dict(state.runner.machine())
    settings = state.settings
    requested = {settings.value("threads", model).value for model, _ in state.cases.values()}
    threads = {facts.get("physical_cores") if n is None else n for n in requested}
    return {**facts, "threads": sorted(threads, key=str)}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse comparisons that would pass whatever was measured."""
    names = [item.nodeid for item in items if FIXTURE in getattr(item, "fixturenames", ())]
    if not names:
        return
    state = state_of(config)
    state.tracks_latency = True
    if state.worker_input is not None or config.getoption("collectonly"):
        return  # In a worker each test reports that it is not measured.
    reason = problem(
        names,
        machine_facts(state),
        state.baselines,
        compare=bool(config.getoption("benchmark_compare", None)),
        compare_fail=bool(config.getoption("benchmark_compare_fail", None)),
        measuring=not any(
            config.getoption(f"benchmark_{how}", None) for how in ("disable", "skip")
        ),
    )
    if reason is not None:
        raise pytest.UsageError(f"ptqbench: {reason}")


@pytest.fixture
def ptqbench_latency(
    request: pytest.FixtureRequest, ptqbench_settings: CaseRequest
) -> Callable[[Any, str], None]:
    """Provide a function that measures an artifact's latency from ``benchmark`` and a precision.

    Benchmarks are grouped by model; size, accuracy and SQNR of the case are in
    ``extra_info``. Use the settings of `BENCHMARK` as the marker ``benchmark``.
    """
    state = state_of(request.config)
    if state.worker_input is not None:
        pytest.fail(
            "Latency is not measured under pytest-xdist: workers take the CPU from each other, "
            "and pytest-benchmark measures nothing there. Run it with -n 0.",
            pytrace=False,
        )

    def measure(benchmark: Any, precision: str) -> None:
        __tracebackhide__ = True
        case = ptqbench_settings
        if precision not in PRECISIONS:
            pytest.fail(
                f"latency of {case.name}: Unknown precision {precision!r}. "
                f"{nearest(precision, PRECISIONS)}",
                pytrace=False,
            )
        if getattr(benchmark, "disabled", False):
            _settle(
                f"latency of {case.name}: benchmarks are disabled, nothing was measured.", state
            )
        try:
            reference = state.runner.reference(case)
            call = state.runner.latency(case, precision)
        except UserError as error:
            _settle(f"latency of {case.name}: {error}", state)
        benchmark.group = case.model
        benchmark.extra_info.update(
            backend=case.backend,
            precision=precision,
            weights=str(case.settings.weights),
            weights_key=case.settings.weights_key,
            data=case.settings.data,
            recipe=reference.recipe,
            batch_size=case.settings.batch_size,
            input_size=case.settings.input_size,
            **reference.numbers,
        )
        benchmark(call)
        regressions = list(_regressions(request.config, benchmark))
        if regressions:
            state.regressions += len(regressions)
            pytest.fail(
                f"latency of {case.name}, {precision}: {'; '.join(regressions)}", pytrace=False
            )

    return measure


def _settle(message: str, state: State) -> NoReturn:
    """End a test that could not be measured, as the profile prescribes."""
    __tracebackhide__ = True
    from ptqbench.gates.verdict import Verdict
    from ptqbench.testing.outcomes import settle

    settle(message, Verdict.UNVERIFIED, state.profile)
    raise AssertionError("an unverified latency went on")


def _regressions(config: pytest.Config, benchmark: Any) -> Iterator[str]:
    """List the limits of ``--benchmark-compare-fail`` that a benchmark exceeds.

    pytest-benchmark compares after the last test, in a traceback that no report shows as a
    failure; compared here, the test that became slower fails.
    """
    for check in config.getoption("benchmark_compare_fail", None) or ():
        for baseline in state_of(config).baselines:
            saved = baseline.benchmarks.get(benchmark.fullname)
            if saved is not None and check.fails(benchmark.stats, saved):
                before, now = saved[check.field], benchmark.stats[check.field]
                relative = "Percentage" in type(check).__name__
                allowed = f"{check.threshold:g} %" if relative else _ms(check.threshold)
                yield (
                    f"{check.field} {_ms(before)} before and {_ms(now)} now, "
                    f"{now / before - 1:.0%} more ({allowed} allowed)"
                )


def _ms(seconds: float) -> str:
    return f"{significant(seconds * 1e3)} ms"


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(config: pytest.Config) -> Generator[None, object, object]:
    """Leave out the traceback of regressions for which tests have failed already."""
    try:
        return (yield)
    except Exception as error:
        state = config.stash.get(STATE, None)
        session = getattr(config, "_benchmarksession", None)
        known = len(getattr(session, "performance_regressions", ()))
        ours = type(error).__name__ == "PerformanceRegression" and state is not None
        if not ours or state is None or known != state.regressions:
            raise
        return None


BENCHMARK: dict[str, Any] = {
    "warmup": True,
    "warmup_iterations": 20,
    "min_rounds": 30,
    "max_time": 2.0,
    "disable_gc": True,
}
"""pytest-benchmark's own defaults (no warm-up, five rounds, GC on) suit functions of
microseconds, not models: lazily packed weights and first allocations would be measured."""
