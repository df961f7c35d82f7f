"""Does the file, loaded by a fresh process, give the logits that were measured?"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ptqbench.backends.backend import Backend, Model
from ptqbench.core.phases import INSPECTION, Phases
from ptqbench.measurement.replay import ReplayProcess


@dataclass(frozen=True)
class Fidelity:
    """What a fresh process computed with the artifact.

    Attributes:
        images: How many images both saw.
        identical: For how many all logits were identical, bit by bit.
        difference: Largest absolute difference of a logit; None without logits.
        recorded_engine: Engine that the file says it must run under; empty if it records none.
        measured_engine: Engine that it was measured under.
        fresh_engine: Engine that the fresh process ran under; empty if it failed.
        error: Why the fresh process gave no logits; empty if it did.
    """

    images: int
    identical: int
    difference: float | None
    recorded_engine: str
    measured_engine: str
    fresh_engine: str
    error: str = ""


def measure_fidelity(
    path: Path,
    measured: Model,
    images: Tensor,
    *,
    backend: Backend,
    recorded: Backend | None,
    running: ReplayProcess | None = None,
    phases: Phases | None = None,
) -> Fidelity:
    """Compare the logits of a loaded artifact with those of a fresh process.

    The fresh process gets the file and the images, and nothing else: it loads the file on
    the backend that the file records.

    Args:
        path: The file.
        measured: What the other measurements called.
        images: A few, ``N×C×H×W`` float32.
        backend: Backend that ``measured`` runs on.
        recorded: Backend that the file records; None for a file that records none, which is
            loaded on ``backend``.
        running: A process that was given that file with these images before; by default a
            new one is.
        phases: Where the forward pass is counted.

    Raises:
        NotStartedError: No other process could be started.
    """
    with ExitStack() as stack:
        if running is None:
            running = stack.enter_context(ReplayProcess())
            running.start(recorded or backend, path, images)
        forward = (phases or Phases()).measure(INSPECTION, forward=True)
        with torch.inference_mode(), forward:
            here = measured(images).numpy()
        fresh = running.result()
    there, error = fresh.logits, fresh.error
    same, difference = 0, None
    if there is not None and there.shape == here.shape:
        equal = here.view(np.uint32) == there.view(np.uint32)
        same = int(equal.reshape(len(here), -1).all(1).sum())
        difference = float(np.abs(here.astype(np.float64) - there).max())
    elif there is not None:
        error = f"it gives logits of shape {there.shape} instead of {here.shape}"
    return Fidelity(
        images=len(images),
        identical=same,
        difference=difference,
        recorded_engine="" if recorded is None else recorded.engine,
        measured_engine=backend.engine,
        fresh_engine=fresh.engine,
        error=error,
    )
