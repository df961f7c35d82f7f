"""The timing protocol on a clock that only moves when a model is called."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import chain, cycle, repeat
from statistics import median

import numpy as np
import pytest
import torch
from torch import Tensor

from ptqbench.errors import UserError
from ptqbench.measurement.fastest import pick_fastest, race
from ptqbench.measurement.intervals import ratio_interval
from ptqbench.measurement.speed import measure_speed
from ptqbench.measurement.timed_model import repeats_for

EXAMPLE = torch.zeros(1, 3, 8, 8)
WARM_UP = 6
"""Calls of each side that a steady clock needs to be found stable."""


class FakeClock:
    """A clock, and the log of who moved it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def model(
        self,
        name: str,
        durations_ms: Iterator[float] | float,
        seen: Callable[[], None] | None = None,
    ) -> Callable[[Tensor], Tensor]:
        """A model whose calls take the given times."""
        times = repeat(durations_ms) if isinstance(durations_ms, float) else durations_ms

        def call(x: Tensor) -> Tensor:
            self.now += next(times) / 1e3
            self.log.append(name)
            if seen:
                seen()
            return x

        return call


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    """Two threads before every test, and afterwards what there was."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def noisy(mean: float, seed: int, spread: float = 0.2) -> Iterator[float]:
    generator = np.random.default_rng(seed)
    while True:
        yield mean * float(np.exp(generator.normal(0, spread)))


def test_speedup_and_times_of_a_steady_clock(clock: FakeClock) -> None:
    speed = measure_speed(
        clock.model("A", 30.0), clock.model("B", 10.0), EXAMPLE,
        threads=1, threshold=1.5, clock=clock, float32_plain_ms=41.0,
    )  # fmt: skip
    ratio = speed.speedup
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((3, 3, 3))
    assert (speed.float32_ms, speed.int8_ms) == pytest.approx((30, 10))
    noise = speed.noise
    assert (noise.value, noise.low, noise.high) == pytest.approx((1, 1, 1))
    assert (speed.pairs, ratio.n, noise.n) == (20, 20, 20)
    assert (speed.threads, speed.input_shape) == (1, (1, 3, 8, 8))
    assert speed.float32_plain_ms == 41.0


def test_order_alternates_and_the_noise_floor_surrounds_it(clock: FakeClock) -> None:
    measure_speed(
        clock.model("A", 30.0), clock.model("B", 10.0), EXAMPLE,
        threads=1, threshold=None, min_pairs=4, max_pairs=4, clock=clock,
    )  # fmt: skip
    log = "".join(clock.log)
    assert log == "AB" * WARM_UP + "AA" * 2 + "ABBAABBA" + "AA" * 2


def test_alternation_cancels_what_a_change_of_model_costs(clock: FakeClock) -> None:
    def after_change(name: str, warm: float, cold: float) -> Iterator[float]:
        while True:
            yield warm if clock.log and clock.log[-1] == name else cold

    speed = measure_speed(
        clock.model("A", after_change("A", 10.0, 11.0)),
        clock.model("B", after_change("B", 5.0, 5.5)),
        EXAMPLE, threads=1, threshold=None, clock=clock,
    )  # fmt: skip
    assert speed.speedup.value == pytest.approx(2)


def test_a_machine_that_slows_down_does_not_move_the_ratio(clock: FakeClock) -> None:
    def slowing(ms: float) -> Iterator[float]:
        while True:
            yield ms * (3 if len(clock.log) > 50 else 1)

    speed = measure_speed(
        clock.model("A", slowing(20.0)), clock.model("B", slowing(8.0)), EXAMPLE,
        threads=1, threshold=2.0, clock=clock,
    )  # fmt: skip
    assert speed.speedup.value == pytest.approx(2.5)


def test_pairs_are_doubled_until_the_interval_clears_the_threshold(clock: FakeClock) -> None:
    speed = measure_speed(
        clock.model("A", noisy(24.0, 1)), clock.model("B", noisy(10.0, 2)), EXAMPLE,
        threads=1, threshold=1.6, clock=clock,
    )  # fmt: skip
    assert 20 < speed.pairs < 160
    assert speed.speedup.low > 2.0
    assert speed.noise.n == speed.pairs  # or the wider noise floor would decide


def test_pairs_are_added_below_the_threshold_too(clock: FakeClock) -> None:
    speed = measure_speed(
        clock.model("A", noisy(18.0, 1)), clock.model("B", noisy(10.0, 2)), EXAMPLE,
        threads=1, threshold=2.0, clock=clock,
    )  # fmt: skip
    assert 20 < speed.pairs <= 160
    assert speed.speedup.high < 2.0


@pytest.mark.parametrize("bound", [20, 50, 160])
def test_pairs_are_bounded_where_nothing_clears(clock: FakeClock, bound: int) -> None:
    speed = measure_speed(
        clock.model("A", chain(repeat(20.0, WARM_UP), cycle([15.0, 19.0, 21.0, 25.0]))),
        clock.model("B", 10.0),
        EXAMPLE, threads=1, threshold=2.0, max_pairs=bound, clock=clock,
    )  # fmt: skip
    assert speed.pairs == bound
    assert speed.speedup.low < 2.0 <= speed.speedup.high


def test_without_a_threshold_only_the_first_pairs_are_taken(clock: FakeClock) -> None:
    speed = measure_speed(
        clock.model("A", noisy(20.0, 1)), clock.model("B", noisy(10.0, 2)), EXAMPLE,
        threads=1, threshold=None, clock=clock,
    )  # fmt: skip
    assert speed.pairs == 20


def test_fast_calls_are_repeated_inside_a_sample(clock: FakeClock) -> None:
    speed = measure_speed(
        clock.model("A", 0.5), clock.model("B", 0.25), EXAMPLE,
        threads=1, threshold=None, min_pairs=4, max_pairs=4, clock=clock,
    )  # fmt: skip
    assert "".join(clock.log) == (
        "AB" * WARM_UP + "AA" * 4 + ("AA" + "BBBB" + "BBBB" + "AA") * 2 + "AA" * 4
    )
    assert (speed.float32_ms, speed.int8_ms) == pytest.approx((0.5, 0.25))
    assert speed.speedup.value == pytest.approx(2)


@pytest.mark.parametrize(("ms", "repeats"), [(5, 1), (1, 1), (0.99, 2), (0.25, 4), (0.001, 1000)])
def test_repeats_fill_a_millisecond(ms: float, repeats: int) -> None:
    assert repeats_for(ms) == repeats


def test_a_clock_too_coarse_is_said() -> None:
    with pytest.raises(ValueError, match="too coarse"):
        repeats_for(0.0)


def test_warm_up_is_left_out(clock: FakeClock) -> None:
    slow_start = chain([900.0, 300.0, 80.0, 40.0, 25.0], repeat(20.0))
    speed = measure_speed(
        clock.model("A", slow_start), clock.model("B", 10.0), EXAMPLE,
        threads=1, threshold=None, clock=clock,
    )  # fmt: skip
    assert speed.float32_ms == pytest.approx(20)
    assert (speed.noise.low, speed.noise.high) == pytest.approx((1, 1))


def test_warm_up_of_an_unstable_machine_is_bounded_in_calls(clock: FakeClock) -> None:
    growing = (float(1.1**call) for call in range(10_000))
    pick_fastest({"A": clock.model("A", growing)}, EXAMPLE, rounds=1, clock=clock)
    assert len(clock.log) == 60 + 1


def test_warm_up_of_a_slow_model_is_bounded_in_time(clock: FakeClock) -> None:
    pick_fastest({"A": clock.model("A", 4000.0)}, EXAMPLE, rounds=1, clock=clock)
    assert len(clock.log) == 3 + 1


def test_noise_floor_shows_what_the_machine_does(clock: FakeClock) -> None:
    speed = measure_speed(
        clock.model("A", noisy(20.0, 3)), clock.model("B", 5.0), EXAMPLE,
        threads=1, threshold=1.5, clock=clock,
    )  # fmt: skip
    assert speed.noise.low < 1 < speed.noise.high
    assert speed.noise.high / speed.noise.low > 1.05


def test_result_keeps_its_samples_in_the_order_of_measurement() -> None:
    fake = FakeClock()
    speed = measure_speed(
        fake.model("A", noisy(20.0, 3)), fake.model("B", noisy(9.0, 4)), EXAMPLE,
        threads=1, threshold=None, clock=fake,
    )  # fmt: skip
    assert len(speed.samples.first_ms) == len(speed.samples.second_ms) == speed.pairs
    assert speed.speedup == ratio_interval(speed.samples.first_ms, speed.samples.second_ms)
    assert speed.noise == ratio_interval(
        speed.noise_samples.first_ms, speed.noise_samples.second_ms
    )
    assert speed.float32_ms == median(speed.samples.first_ms)


def test_pairs_are_added_until_the_interval_has_bounds() -> None:
    fake = FakeClock()
    drift = iter(np.linspace(20, 30, 300))
    speed = measure_speed(
        fake.model("A", drift), fake.model("B", 10.0), EXAMPLE,
        threads=1, threshold=None, max_pairs=40, clock=fake,
    )  # fmt: skip
    assert speed.pairs == 40  # neighbours that resemble each other say too little


def test_conditions_hold_during_the_measurement(clock: FakeClock) -> None:
    seen = set()

    def look() -> None:
        seen.add((torch.get_num_threads(), gc.isenabled(), torch.is_inference_mode_enabled()))

    measure_speed(
        clock.model("A", 9.0, look), clock.model("B", 3.0, look), EXAMPLE,
        threads=1, threshold=None, clock=clock,
    )  # fmt: skip
    assert seen == {(1, False, True)}


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_threads_and_garbage_collection_are_restored(
    clock: FakeClock, collecting: bool, error: type[BaseException] | None
) -> None:
    def stop() -> None:
        if error and len(clock.log) > 20:
            raise error

    before = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        arguments = (clock.model("A", 9.0, stop), clock.model("B", 3.0), EXAMPLE)
        if error:
            with pytest.raises(error):
                measure_speed(*arguments, threads=1, threshold=None, clock=clock)
        else:
            measure_speed(*arguments, threads=1, threshold=None, clock=clock)
        assert gc.isenabled() is collecting
        assert torch.get_num_threads() == 2
        assert not torch.is_inference_mode_enabled()
    finally:
        (gc.enable if before else gc.disable)()


def test_progress_counts_pairs(clock: FakeClock) -> None:
    calls: list[tuple[str, int, int]] = []
    measure_speed(
        clock.model("A", 9.0), clock.model("B", 3.0), EXAMPLE, threads=1, threshold=None,
        min_pairs=4, max_pairs=4, clock=clock, progress=lambda *call: calls.append(call),
    )  # fmt: skip
    assert [call for call in calls if call[0] == "speed"] == [("speed", i, 4) for i in range(1, 5)]
    assert all(done <= total for _, done, total in calls)


def test_no_threads_is_the_users_error(clock: FakeClock) -> None:
    with pytest.raises(UserError, match="threads must be 1 or more, but is 0"):
        measure_speed(len, len, EXAMPLE, threads=0, threshold=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("least", "most"), [(1, 10), (20, 10)])
def test_contradictory_bounds_are_refused(clock: FakeClock, least: int, most: int) -> None:
    with pytest.raises(ValueError, match="min_pairs"):
        measure_speed(
            clock.model("A", 1.0), clock.model("B", 1.0), EXAMPLE,
            threads=1, threshold=None, min_pairs=least, max_pairs=most, clock=clock,
        )  # fmt: skip


def test_pick_fastest_takes_turns(clock: FakeClock) -> None:
    candidates = {name: clock.model(name, ms) for name, ms in (("A", 9.0), ("B", 4.0), ("C", 6.0))}
    name, times = pick_fastest(candidates, EXAMPLE, threads=1, rounds=3, clock=clock)
    assert name == "B"
    assert times == pytest.approx({"A": 9, "B": 4, "C": 6})
    assert "".join(clock.log) == "ABC" * WARM_UP + "ABC" + "BCA" + "CAB"
    assert torch.get_num_threads() == 2


def test_pick_fastest_keeps_the_first_of_equals_and_the_thread_count(clock: FakeClock) -> None:
    seen = set()
    candidates = {
        "A": clock.model("A", 4.0, lambda: seen.add(torch.get_num_threads())),
        "B": clock.model("B", 4.0),
    }
    assert pick_fastest(candidates, EXAMPLE, clock=clock)[0] == "A"
    assert seen == {2}


def test_hopeless_models_leave_a_race_after_a_few_calls(clock: FakeClock) -> None:
    durations = {"A": 6.0, "B": 300.0, "C": 5.0, "D": 13.0}
    models = {name: clock.model(name, ms) for name, ms in durations.items()}
    steps: list[tuple[str, int, int]] = []
    times = race(
        models, EXAMPLE, threads=1, rounds=4, clock=clock,
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert {name: (time.ms, time.left_after) for name, time in times.items()} == {
        name: (pytest.approx(durations[name]), calls)
        for name, calls in (("C", None), ("A", None), ("D", 3), ("B", 2))
    }
    assert list(times) == ["C", "A", "D", "B"]
    assert "".join(clock.log) == "ABCD" * 2 + "ACD" + "AC" * (WARM_UP - 3) + "ACCA" * 2
    assert [done for _, done, _ in steps] == [1, 2, 3, 4]


def test_a_slow_first_call_does_not_end_a_race(clock: FakeClock) -> None:
    slow_start = chain([900.0], repeat(4.0))
    models = {"A": clock.model("A", slow_start), "B": clock.model("B", 5.0)}
    assert list(race(models, EXAMPLE, threads=1, clock=clock)) == ["A", "B"]


def test_a_race_of_one(clock: FakeClock) -> None:
    times = race({"A": clock.model("A", 4.0)}, EXAMPLE, threads=1, clock=clock)
    assert times["A"].left_after is None


def test_pick_fastest_needs_candidates() -> None:
    with pytest.raises(ValueError, match="candidates"):
        pick_fastest({}, EXAMPLE)


def test_real_modules_on_the_real_clock() -> None:
    small, large = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 64, 7)
    speed = measure_speed(
        large, small, torch.zeros(1, 3, 64, 64), threads=1, threshold=1.0, max_pairs=40
    )
    # The interval may have no bounds while something else keeps the machine busy.
    assert speed.speedup.value > 1.0
    assert speed.float32_ms > speed.int8_ms > 0


@pytest.mark.slow
def test_stopping_early_rarely_decides_where_there_is_nothing_to_decide() -> None:
    def clear(seed: int) -> bool:
        fake = FakeClock()
        ratio = measure_speed(
            fake.model("A", noisy(20.0, 2 * seed)), fake.model("B", noisy(10.0, 2 * seed + 1)),
            EXAMPLE, threads=1, threshold=2.0, clock=fake,
        ).speedup  # fmt: skip
        return ratio.low >= 2.0 or ratio.high < 2.0

    # A collection before every measurement looks at all that other tests have left; not here.
    gc.freeze()
    try:
        assert np.mean([clear(seed) for seed in range(100)]) <= 0.10
    finally:
        gc.unfreeze()
