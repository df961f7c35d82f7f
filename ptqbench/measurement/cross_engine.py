"""What a file that records no engine does under each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptqbench.backends.torch_engines.artifact import reason_of
from ptqbench.backends.torch_engines.engine import engine_set
from ptqbench.backends.torch_engines.foreign_artifact import GivenArtifact
from ptqbench.measurement.model_type import Model
from ptqbench.measurement.sqnr import decibels

BETTER_DB = 3.0
"""More SQNR by that much under another engine is more than engines that compute alike differ."""


@dataclass(frozen=True)
class UnderEngine:
    """Logits of a file under one engine.

    Attributes:
        engine: torch quantized engine.
        same: Whether they are those under the engine that the file is judged under, bit by
            bit.
        sqnr_db: Signal-to-quantization-noise ratio to float32 on the few images, in dB; None
            where the file does not run.
        error: Why it does not run; empty if it does.
    """

    engine: str
    same: bool
    sqnr_db: float | None
    error: str = ""


def measure_engines(
    given: GivenArtifact, float32: Model, images: Tensor, engines: Iterable[str]
) -> tuple[UnderEngine, ...]:
    """Run a file under its own engine, which comes first, and under others.

    Args:
        given: The file, and the engine that it is judged under.
        float32: The original.
        images: A few, ``N×C×H×W`` float32.
        engines: The others.
    """
    with torch.inference_mode():
        original = float32(images)
    own = given.info.engine
    chosen = _logits(given, own, images)
    found = []
    for engine in dict.fromkeys((own, *engines)):
        logits = chosen if engine == own else _logits(given, engine, images)
        if isinstance(logits, str):
            found.append(UnderEngine(engine, False, None, logits))
            continue
        same = isinstance(chosen, Tensor) and torch.equal(chosen, logits)
        found.append(UnderEngine(engine, same, sqnr_db(original, logits)))
    return tuple(found)


def sqnr_db(exact: Tensor, quantized: Tensor) -> float:
    """Signal-to-quantization-noise ratio of logits in dB."""
    signal = float(exact.double().square().sum())
    return decibels(signal, float((exact.double() - quantized.double()).square().sum()))


def better_elsewhere(found: Sequence[UnderEngine]) -> UnderEngine | None:
    """The engine under which the logits are clearly nearer to float32's than under the first."""
    if not found:
        return None
    own = found[0].sqnr_db
    if own is None or math.isinf(own):
        return None
    others = [other for other in found[1:] if (other.sqnr_db or -math.inf) >= own + BETTER_DB]
    return max(others, key=lambda other: other.sqnr_db or -math.inf, default=None)


def _logits(given: GivenArtifact, engine: str, images: Tensor) -> Tensor | str:
    """Logits under an engine, or why there are none."""
    with engine_set(engine):
        try:
            with torch.inference_mode():
                return given.under(engine).load()(images)
        except Exception as error:  # what strangers' files raise has no list
            return reason_of(error)
