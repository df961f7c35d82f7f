"""Speed: two models side by side in one process, in pairs, as a ratio with its interval.

Absolute times move with everything else that a machine does; the ratio of two calls
made right after one another moves far less. So float32 and int8 are called in
alternating order (A B, B A, ...), each pair gives one ratio, and the median of the
logarithms of these ratios is the speedup. The same protocol with float32 on both sides
tells what this machine makes of no difference at all.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.core.progress import Progress, silent
from ptqbench.measurement.intervals import (
    Estimate,
    lag_one_correlation,
    noise_factor,
    ratio_interval,
)
from ptqbench.measurement.timed_model import (
    Clock,
    TimedModel,
    check_threads,
    timing_conditions,
    warm_up,
)

STOPPING_CONFIDENCE = 0.99
"""Level at which an interval must clear the threshold for pairs to stop being added.

Looking several times and stopping at the first clear look errs more often than one
look does. Stopping early only at 99 % keeps the error of all looks together near the
5 % that the reported interval stands for.
"""


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
        opponent: Runtime of the float32 side, if it is another one than that of int8; else empty.
        same_runtime: The speedup over float32 in int8's own runtime, if that is not the opponent.
        same_runtime_ms: Median time of a call of that float32 in ms, likewise.
        cause: What the backend has no fast kernel for in the artifact, a sentence; empty if there
            is nothing, or int8 is fast enough.
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
    opponent: str = ""
    same_runtime: Estimate | None = None
    same_runtime_ms: float | None = None
    cause: str = ""

    @property
    def correlation(self) -> float | None:
        """Lag-1 correlation of the logarithms of the pairs' ratios; None without raw samples."""
        first, second = self.samples.first_ms, self.samples.second_ms
        return lag_one_correlation(np.log(first) - np.log(second)) if first else None


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
        progress: Progress callback; counts pairs.
        clock: Where the time comes from.
        float32_plain_ms: Passed on to the result.

    Raises:
        UserError: ``threads`` is below 1.
        ValueError: The bounds on pairs contradict each other.
    """
    if not 2 <= min_pairs <= max_pairs:
        raise ValueError(f"Expected 2 <= min_pairs <= max_pairs, got {min_pairs}, {max_pairs}.")
    check_threads(threads)
    with timing_conditions(threads), torch.inference_mode():
        a = TimedModel(float32, example, clock)
        b = TimedModel(int8, example, clock)
        warm_up([a, b], clock)
        noise = _Pairs(a, TimedModel(float32, example, clock, a.repeats), progress, "noise floor")
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


class _Pairs:
    """Samples of two sides, taken in pairs whose order alternates."""

    def __init__(
        self, first: TimedModel, second: TimedModel, progress: Progress, name: str
    ) -> None:
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
