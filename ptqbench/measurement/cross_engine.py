"""The logits of a file that records no backend, on each backend of its runtime."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.backend import Backend, Model
from ptqbench.backends.foreign_artifact import ForeignArtifact
from ptqbench.measurement.replay import NotStartedError, Replayed, ReplayProcess
from ptqbench.measurement.sqnr import LogitNoise, decibels

BETTER_DB = 3.0
"""Engines that compute alike differ by less SQNR than that."""


@dataclass(frozen=True)
class UnderEngine:
    """Logits of a file under one engine.

    Attributes:
        engine: Name of the engine.
        same: Whether they equal those under the engine that the file is judged under, bit by
            bit.
        sqnr_db: Signal-to-quantization-noise ratio to float32 on the few images, in dB; None
            if the file does not run.
        error: Why it does not run; empty if it does.
    """

    engine: str
    same: bool
    sqnr_db: float | None
    error: str = ""


def measure_engines(
    artifact: ForeignArtifact,
    backend: Backend,
    float32: Model,
    images: Tensor,
    others: Iterable[Backend],
    process: ReplayProcess,
) -> tuple[UnderEngine, ...]:
    """Run a file on its own backend, which comes first, and on others.

    Args:
        artifact: The file, to be loaded on ``backend``.
        backend: The one that it is judged on; there it was tried out.
        float32: The original.
        images: A few, ``N×C×H×W`` float32.
        others: Other backends of the same runtime, which run it in ``process``: it may kill
            the process there.
        process: Another process.
    """
    with torch.inference_mode():
        original = float32(images)
        expected = artifact.load()(images)
    results = [_under(backend.engine, original, expected, expected)]
    for other, replayed in _replays(process, artifact.path, images, others):
        if replayed.logits is None:
            results.append(UnderEngine(other.engine, False, None, replayed.error))
            continue
        logits = torch.from_numpy(replayed.logits)
        results.append(_under(other.engine, original, expected, logits))
    return tuple(results)


def backends_that_run(
    path: Path, image: Tensor, others: Iterable[Backend], process: ReplayProcess
) -> list[Backend]:
    """The backends on which another process gets logits from a file.

    Args:
        path: The file.
        image: One, ``1×C×H×W`` float32.
        others: The backends to try, until the file hangs on one.
        process: Another process.
    """
    replays = _replays(process, path, image, others)
    return [other for other, replayed in replays if replayed.logits is not None]


def _replays(
    process: ReplayProcess, path: Path, images: Tensor, others: Iterable[Backend]
) -> Iterator[tuple[Backend, Replayed]]:
    """What a file does on other backends; after one that it hangs on no more are tried."""
    hung = ""
    for other in others:
        if hung:
            yield other, Replayed(None, error=f"it was not tried, because it hangs under {hung}")
            continue
        try:
            replayed = process.replay(other, path, images)
        except NotStartedError as error:
            replayed = Replayed(None, error=str(error))
        hung = other.engine if replayed.hung else ""
        yield other, replayed


def better_elsewhere(results: Sequence[UnderEngine]) -> UnderEngine | None:
    """The engine whose logits are clearly closer to float32's than those of the first one."""
    if not results:
        return None
    first = results[0].sqnr_db
    if first is None or math.isinf(first):
        return None
    best = max(results[1:], key=_sqnr_db, default=None)
    return best if best is not None and _sqnr_db(best) >= first + BETTER_DB else None


def _sqnr_db(result: UnderEngine) -> float:
    return -math.inf if result.sqnr_db is None else result.sqnr_db


def _under(engine: str, original: Tensor, expected: Tensor, logits: Tensor) -> UnderEngine:
    noise = LogitNoise.of(original, logits)
    same = torch.equal(expected, logits)
    return UnderEngine(engine, same, decibels(noise.signal, noise.noise))
