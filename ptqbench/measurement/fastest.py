"""Compare several models: which of them run an input, and which is the fastest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.core.progress import Progress, silent
from ptqbench.measurement.timed_model import (
    Clock,
    TimedModel,
    check_threads,
    timing_conditions,
    warm_up,
)

HOPELESS = {2: 5.0, 3: 2.0}
"""After so many calls, a model that takes so many times as long as the fastest one leaves. The
first call prepares kernels, so it alone says little."""


@dataclass(frozen=True)
class CallTime:
    """How long a call of a model takes.

    Attributes:
        ms: Median time in ms; of a model that left early, the shortest.
        left_after: Number of calls after which it was so slow that it left; None: it stayed.
    """

    ms: float
    left_after: int | None = None


def race(
    candidates: Mapping[str, Model],
    example: Tensor,
    *,
    threads: int,
    rounds: int = 7,
    progress: Progress = silent,
    clock: Clock = time.perf_counter,
) -> dict[str, CallTime]:
    """Time several models, of which the hopeless ones leave after a few calls.

    Args:
        candidates: Models by name.
        example: Input, N x 3 x H x W, float32.
        threads: Threads to run with.
        rounds: Samples of each model that stays.
        progress: Progress callback; counts rounds.
        clock: Where the time comes from.

    Returns:
        Times by name, those of the fastest first.

    Raises:
        UserError: ``threads`` is below 1.
    """
    check_threads(threads)
    times: dict[str, CallTime] = {}
    with timing_conditions(threads), torch.inference_mode():
        sides = {name: TimedModel(model, example, clock) for name, model in candidates.items()}
        for calls in range(1, max(HOPELESS) + 1):
            for side in sides.values():
                side.history.append(side.sample())
            shortest = {name: min(side.history) for name, side in sides.items()}
            limit = HOPELESS.get(calls, float("inf")) * min(shortest.values(), default=0.0)
            for name in [name for name, ms in shortest.items() if ms > limit]:
                times[name] = CallTime(shortest[name], calls)
                del sides[name]
        warm_up(list(sides.values()), clock)
        for name, ms in _sampled(sides, rounds, progress).items():
            times[name] = CallTime(ms)
    return dict(sorted(times.items(), key=lambda item: item[1].ms))


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
    check_threads(threads)
    with timing_conditions(threads), torch.inference_mode():
        sides = {name: TimedModel(model, example, clock) for name, model in candidates.items()}
        warm_up(list(sides.values()), clock)
        medians = _sampled(sides, rounds)
    return min(medians, key=medians.__getitem__), medians


def _sampled(
    sides: Mapping[str, TimedModel], rounds: int, progress: Progress = silent
) -> dict[str, float]:
    """Median time of a call in ms by name, of models that take turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for done in range(1, rounds + 1):
        for name in order:
            times[name].append(sides[name].sample())
        order.append(order.pop(0))
        progress("time the backends", done, rounds)
    return {name: median(samples) for name, samples in times.items()}


def runnable(models: Mapping[str, Model], example: Tensor) -> dict[str, Model]:
    """Return the models that can run an input at all.

    oneDNN's layouts know no adaptive pooling to a size that does not divide its input's, and
    what is lowered to them can run one input size and fail on another.

    Args:
        models: By name.
        example: Input, N x 3 x H x W, float32.
    """
    models_that_run = {}
    for name, model in models.items():
        with suppress(RuntimeError), torch.inference_mode():
            model(example)
            models_that_run[name] = model
    return models_that_run
