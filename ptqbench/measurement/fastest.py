"""Compare several models: which of them run an input, and which is the fastest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from statistics import median

import torch
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.measurement.timed_model import (
    Clock,
    TimedModel,
    check_threads,
    timing_conditions,
    warm_up,
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
    check_threads(threads)
    with timing_conditions(threads), torch.inference_mode():
        sides = {name: TimedModel(model, example, clock) for name, model in candidates.items()}
        warm_up(list(sides.values()), clock)
        times: dict[str, list[float]] = {name: [] for name in sides}
        order = list(sides)
        for _ in range(rounds):
            for name in order:
                times[name].append(sides[name].sample())
            order.append(order.pop(0))
    medians = {name: median(samples) for name, samples in times.items()}
    return min(medians, key=medians.__getitem__), medians


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
