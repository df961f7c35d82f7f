"""Where the time goes: sums by name, in the order of their first mention."""

from __future__ import annotations

import pytest

from ptqbench.core import phases as module
from ptqbench.core.phases import Phase, Phases


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that tells the times that a test puts into the list, one after the other."""
    times: list[float] = []
    monkeypatch.setattr(module.time, "perf_counter", lambda: times.pop(0))
    return times


def test_time_is_added_up_by_name_in_order_of_first_use(clock: list[float]) -> None:
    phases = Phases()
    clock += [0.0, 1.0, 1.0, 3.0, 10.0, 14.5]
    for name, forward in (("convert", False), ("predict", True), ("convert", False)):
        with phases.measure(name, forward):
            pass
    assert phases.records() == (Phase("convert", 5.5, False), Phase("predict", 2.0, True))


def test_what_is_measured_inside_is_taken_out(clock: list[float]) -> None:
    phases = Phases()
    clock += [0.0, 1.0, 2.0, 2.5, 3.5, 10.0]
    inner = phases.measure("waiting")
    with phases.measure("look inside"), phases.measure("images", forward=True), inner:
        pass
    assert phases.records() == (
        Phase("waiting", 0.5, False),
        Phase("images", 2.0, True),
        Phase("look inside", 7.5, False),
    )


def test_a_failure_counts_too_and_is_passed_on(clock: list[float]) -> None:
    phases = Phases()
    clock += [2.0, 2.5]
    with pytest.raises(KeyboardInterrupt), phases.measure("calibration"):
        raise KeyboardInterrupt
    assert phases.records() == (Phase("calibration", 0.5, False),)


def test_time_measured_elsewhere_can_be_added() -> None:
    phases = Phases()
    phases.add("start and imports", 0.25)
    phases.add("start and imports", 0.5)
    assert phases.records() == (Phase("start and imports", 0.75, False),)


def test_nothing_measured_is_nothing_recorded() -> None:
    assert Phases().records() == ()
