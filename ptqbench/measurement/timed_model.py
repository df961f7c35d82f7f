"""Timing one model: conditions, warm-up and samples."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.errors import UserError

Clock = Callable[[], float]
"""Seconds from some fixed moment, monotonic."""

SHORTEST_SAMPLE = 1e-3
"""A sample lasts at least this long (s); faster calls are repeated inside it."""

_WARM_UP_WINDOW = 3
_WARM_UP_TOLERANCE = 0.05
_WARM_UP_CALLS = 60
_WARM_UP_SECONDS = 10.0


@dataclass
class TimedModel:
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


@contextmanager
def timing_conditions(threads: int) -> Iterator[None]:
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


def warm_up(sides: list[TimedModel], clock: Clock) -> None:
    """Call all sides in turn until the times of each are stable, then set their repeats.

    Stable means: the medians of the last and of the preceding three calls are within
    5 %; calls made before count. A machine that never gets there stops it after 60 calls
    each or 10 s.
    """
    started = clock()
    window = _WARM_UP_WINDOW
    for done in range(1, _WARM_UP_CALLS + 1):
        for side in sides:
            side.history.append(side.sample())
        if all(len(side.history) >= 2 * window and _stable(side.history) for side in sides):
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


def _stable(history: list[float]) -> bool:
    window = _WARM_UP_WINDOW
    last, earlier = median(history[-window:]), median(history[-2 * window : -window])
    return abs(last - earlier) <= _WARM_UP_TOLERANCE * earlier


def check_threads(threads: int) -> None:
    """Check a number of threads.

    Raises:
        UserError: It is below 1.
    """
    if threads < 1:
        raise UserError(f"The number of threads must be 1 or more, but is {threads}.")
