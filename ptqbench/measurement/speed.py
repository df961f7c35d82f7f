"""Speed: two models side by side in one process, in pairs, as a ratio with its interval.

Absolute times move with everything else that a machine does; the ratio of two calls
made right after one another moves far less. So float32 and int8 are called in
alternating order (A B, B A, ...), each pair gives one ratio, and the median of the
logarithms of these ratios is the speedup. The same protocol with float32 on both sides
tells what this machine makes of no difference at all.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.core.progress import Progress, silent
from ptqbench.errors import UserError
from ptqbench.measurement.intervals import Estimate, noise_factor, ratio_interval

Clock = Callable[[], float]
"""Seconds from some fixed moment, monotonic."""

SHORTEST_SAMPLE = 1e-3
"""A sample lasts at least this long (s); faster calls are repeated inside it."""

STOPPING_CONFIDENCE = 0.99
"""Level at which an interval must clear the threshold for pairs to stop being added.

Looking several times and stopping at the first clear look errs more often than one
look does. Stopping early only at 99 % keeps the error of all looks together near the
5 % that the reported interval stands for.
"""

_WARM_UP_WINDOW = 3
_WARM_UP_TOLERANCE = 0.05
_WARM_UP_CALLS = 60
_WARM_UP_SECONDS = 10.0


@dataclass(frozen=True)
class PairedSamples:
    """Raw times of two models, sample by sample in the order of measurement.

    Attributes:
        first_ms: Time of a call of the first model in ms, one for each pair.
        second_ms: Time of a call of the second model in ms, one for each pair.
    """

    first_ms: tuple[float, ...] = ()
    second_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Speed:
    """How much faster int8 is than float32.

    Attributes:
        speedup: Time of float32 over that of int8 (above 1: int8 is faster), with its
            95 % interval over pairs.
        float32_ms: Median time of a float32 call in ms.
        int8_ms: Median time of an int8 call in ms.
        noise: The same ratio with float32 on both sides: what this machine reports
            where there is nothing to report.
        pairs: Pairs of float32 and int8 samples taken.
        threads: Threads that torch ran with.
        input_shape: Shape of the input, N x 3 x H x W.
        float32_plain_ms: Time of a call of float32 as an unoptimized module in ms, for
            comparison, if it was measured.
        samples: The times that the speedup was computed from.
        noise_samples: The times that the noise floor was computed from.
    """

    speedup: Estimate
    float32_ms: float
    int8_ms: float
    noise: Estimate
    pairs: int
    threads: int
    input_shape: tuple[int, ...]
    float32_plain_ms: float | None = None
    samples: PairedSamples = PairedSamples()
    noise_samples: PairedSamples = PairedSamples()


def measure_speed(
    float32: Model,
    int8: Model,
    example: Tensor,
    *,
    threads: int,
    threshold: float | None,
    min_pairs: int = 20,
    max_pairs: int = 160,
    progress: Progress = silent,
    clock: Clock = time.perf_counter,
    float32_plain_ms: float | None = None,
) -> Speed:
    """Measure the speedup of int8 over float32 on one input.

    Both are warmed up until their times are stable; garbage collection is off and the
    thread count set meanwhile, and both are put back as they were. Pairs are doubled
    from ``min_pairs`` on until the interval clears the threshold, by more than noise could
    explain, or ``max_pairs`` are taken. The noise floor has as many pairs; some are taken
    before the others, so that a machine that becomes busy meanwhile shows.

    Args:
        float32: The fastest float32 lowering.
        int8: The quantized artifact.
        example: Input, N x 3 x H x W, float32.
        threads: Threads for both sides.
        threshold: Speedup to decide against; None: pairs are added only until the interval has
            bounds.
        min_pairs: Pairs taken in any case, at least 2.
        max_pairs: Bound on pairs.
        progress: Told how many pairs are done.
        clock: Where the time comes from.
        float32_plain_ms: Passed on to the result.

    Raises:
        UserError: ``threads`` is below 1.
        ValueError: The bounds on pairs contradict each other.
    """
    if not 2 <= min_pairs <= max_pairs:
        raise ValueError(f"Expected 2 <= min_pairs <= max_pairs, got {min_pairs}, {max_pairs}.")
    _check_threads(threads)
    with quiet(threads), torch.inference_mode():
        a = _Side(float32, example, clock)
        b = _Side(int8, example, clock)
        warm_up([a, b], clock)
        noise = _Pairs(a, _Side(float32, example, clock, a.repeats), progress, "noise floor")
        noise.extend(min_pairs // 2, min_pairs)
        pairs = _Pairs(a, b, progress, "speed")
        target = min_pairs
        while True:
            pairs.extend(target, target)
            noise.extend(target, target)
            if target >= max_pairs or _clear(pairs, noise, threshold):
                break
            target = min(2 * target, max_pairs)
    return Speed(
        speedup=ratio_interval(pairs.first_ms, pairs.second_ms),
        float32_ms=median(pairs.first_ms),
        int8_ms=median(pairs.second_ms),
        noise=ratio_interval(noise.first_ms, noise.second_ms),
        pairs=len(pairs.first_ms),
        threads=threads,
        input_shape=tuple(example.shape),
        float32_plain_ms=float32_plain_ms,
        samples=PairedSamples(tuple(pairs.first_ms), tuple(pairs.second_ms)),
        noise_samples=PairedSamples(tuple(noise.first_ms), tuple(noise.second_ms)),
    )


def pick_fastest(
    candidates: Mapping[str, Model],
    example: Tensor,
    *,
    threads: int | None = None,
    rounds: int = 7,
    clock: Clock = time.perf_counter,
) -> tuple[str, dict[str, float]]:
    """Find the fastest of several models by calling them in turn.

    Args:
        candidates: Models by name; the first of equals wins.
        example: Input, N x 3 x H x W, float32.
        threads: Threads to run with; by default as torch is set now.
        rounds: Samples of each model.
        clock: Where the time comes from.

    Returns:
        The name of the fastest, and the median time of a call in ms by name.

    Raises:
        UserError: ``threads`` is below 1.
        ValueError: There are no candidates or no rounds.
    """
    if not candidates or rounds < 1:
        raise ValueError(f"Expected candidates and rounds, but got {len(candidates)} and {rounds}.")
    threads = torch.get_num_threads() if threads is None else threads
    _check_threads(threads)
    with quiet(threads), torch.inference_mode():
        sides = {name: _Side(model, example, clock) for name, model in candidates.items()}
        warm_up(list(sides.values()), clock)
        times: dict[str, list[float]] = {name: [] for name in sides}
        order = list(sides)
        for _ in range(rounds):
            for name in order:
                times[name].append(sides[name].sample())
            order.append(order.pop(0))
    medians = {name: median(samples) for name, samples in times.items()}
    return min(medians, key=medians.__getitem__), medians


def that_run(models: Mapping[str, Model], example: Tensor) -> dict[str, Model]:
    """The models that can run an input at all.

    oneDNN's layouts know no adaptive pooling to a size that does not divide its input's, and
    what is lowered to them can run one input size and fail on another.

    Args:
        models: By name.
        example: Input, N x 3 x H x W, float32.
    """
    able = {}
    for name, model in models.items():
        with suppress(RuntimeError), torch.inference_mode():
            model(example)
            able[name] = model
    return able


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """Run with ``threads`` torch threads and without garbage collection, then restore both."""
    before = torch.get_num_threads()
    collecting = gc.isenabled()
    gc.collect()
    try:
        gc.disable()
        torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


def warm_up(sides: list[_Side], clock: Clock) -> None:
    """Call all sides in turn until the times of each are stable, then set their repeats.

    Stable means: the medians of the last and of the preceding three calls are within
    5 %. A machine that never gets there stops it after 60 calls each or 10 s.
    """
    started = clock()
    window = _WARM_UP_WINDOW
    for done in range(1, _WARM_UP_CALLS + 1):
        for side in sides:
            side.history.append(side.sample())
        if done >= 2 * window and all(_stable(side.history) for side in sides):
            break
        if done >= window and clock() - started > _WARM_UP_SECONDS:
            break
    for side in sides:
        side.repeats = repeats_for(median(side.history[-window:]))


def repeats_for(call_ms: float) -> int:
    """How many calls of this duration (ms) fill the shortest sample."""
    if call_ms <= 0:
        raise ValueError("A call took no time at all: the clock is too coarse to time it.")
    # Slack for rounding only: 0.25 ms must give 4 repeats and never 5.
    return max(1, math.ceil(SHORTEST_SAMPLE * 1e3 / call_ms - 1e-9))


@dataclass
class _Side:
    """One model that is being timed, and how often a sample calls it."""

    model: Model
    example: Tensor
    clock: Clock
    repeats: int = 1
    history: list[float] = field(default_factory=list)

    def sample(self) -> float:
        """Time of one call in ms, the mean over the repeats of one sample."""
        model, example = self.model, self.example
        started = self.clock()
        for _ in range(self.repeats):
            model(example)
        return (self.clock() - started) * 1e3 / self.repeats


class _Pairs:
    """Samples of two sides, taken in pairs whose order alternates."""

    def __init__(self, first: _Side, second: _Side, progress: Progress, name: str) -> None:
        self.first, self.second = first, second
        self.progress, self.name = progress, name
        self.first_ms: list[float] = []
        self.second_ms: list[float] = []

    def extend(self, target: int, total: int) -> None:
        """Take pairs until there are ``target``, of ``total`` that are planned now."""
        while len(self.first_ms) < target:
            # Alternation cancels what the order does: caches, and a clock that ramps.
            if len(self.first_ms) % 2 == 0:
                first = self.first.sample()
                second = self.second.sample()
            else:
                second = self.second.sample()
                first = self.first.sample()
            self.first_ms.append(first)
            self.second_ms.append(second)
            self.progress(self.name, len(self.first_ms), total)


def _clear(pairs: _Pairs, noise: _Pairs, threshold: float | None) -> bool:
    """Whether the verdict would stay the same with more pairs; without one, any bounds will do."""
    if threshold is None:
        return math.isfinite(ratio_interval(pairs.first_ms, pairs.second_ms).high)
    ratio = ratio_interval(pairs.first_ms, pairs.second_ms, STOPPING_CONFIDENCE)
    factor = noise_factor(ratio_interval(noise.first_ms, noise.second_ms))
    return ratio.low / factor >= threshold or ratio.high * factor < threshold


def _stable(history: list[float]) -> bool:
    window = _WARM_UP_WINDOW
    last, earlier = median(history[-window:]), median(history[-2 * window : -window])
    return abs(last - earlier) <= _WARM_UP_TOLERANCE * earlier


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise UserError(f"The number of threads must be 1 or more, but is {threads}.")
