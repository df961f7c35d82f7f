"""Does the file, loaded by a fresh process, give the logits that were measured?"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ptqbench.core.phases import INSPECTION, Phases
from ptqbench.measurement.fresh_process import FreshProcess
from ptqbench.measurement.model_type import Model
from ptqbench.measurement.replay import Job

TIMEOUT_S = 600


@dataclass(frozen=True)
class Fidelity:
    """What a fresh process made of the artifact.

    Attributes:
        images: How many images both saw.
        identical: For how many all logits were identical, bit by bit.
        difference: Largest absolute difference of a logit; None without logits.
        recorded_engine: Engine that the file says it must run under; empty if it is silent.
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


class Replay:
    """A file that a fresh process runs while this one does something else.

    Args:
        process: Has had no job yet.
        path: The TorchScript file.
        images: ``N×C×H×W`` float32.
        engine: torch quantized engine to load and run it under.
    """

    def __init__(self, process: FreshProcess, path: Path, images: Tensor, engine: str) -> None:
        self._process = process
        self._folder = tempfile.TemporaryDirectory(prefix="ptqbench-")
        given, self._made = (Path(self._folder.name) / f for f in ("images.npy", "logits.npy"))
        np.save(given, images.numpy())
        files = (str(path.resolve()), str(given), str(self._made))
        process.give(json.dumps(asdict(Job(*files, engine, torch.get_num_threads()))))

    def result(self) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None, str, str]:
        """Wait for the process to end.

        Returns:
            Logits ``N×K``, the engine that they were computed under, and what went wrong.
        """
        with self._folder:
            try:
                code, stdout, stderr = self._process.answer(TIMEOUT_S)
            except TimeoutError as error:
                return None, "", str(error)
            if code or not self._made.exists():
                lines = [line for line in stderr.splitlines() if line.strip()]
                return None, "", lines[-1] if lines else f"it ended with code {code}"
            return np.load(self._made), str(json.loads(stdout.splitlines()[-1])["engine"]), ""


def measure_fidelity(
    path: Path,
    measured: Model,
    images: Tensor,
    *,
    measured_engine: str,
    recorded_engine: str,
    replay: Replay | None = None,
    phases: Phases | None = None,
) -> Fidelity:
    """Compare the logits of a loaded artifact with those of a fresh process.

    The fresh process gets the file and the images, and nothing else: it sets the engine
    that the file records before it loads the file.

    Args:
        path: The TorchScript file.
        measured: What the other measurements called.
        images: A few, ``N×C×H×W`` float32.
        measured_engine: Engine under which ``measured`` runs.
        recorded_engine: Engine that the file records; empty for a file that records none,
            which is loaded under ``measured_engine``.
        replay: Of that file under that engine with these images, if it was started before;
            by default it is now.
        phases: Where the forward pass is counted.
    """
    with ExitStack() as stack:
        if replay is None:
            process = stack.enter_context(FreshProcess())
            replay = Replay(process, path, images, recorded_engine or measured_engine)
        forward = (phases or Phases()).measure(INSPECTION, forward=True)
        with torch.inference_mode(), forward:
            here = measured(images).numpy()
        there, engine, error = replay.result()
    same, difference = 0, None
    if there is not None and there.shape == here.shape:
        equal = here.view(np.uint32) == there.view(np.uint32)
        same = int(equal.reshape(len(here), -1).all(1).sum())
        difference = float(np.abs(here.astype(np.float64) - there).max())
    elif there is not None:
        error = f"it gives logits of shape {there.shape} instead of {here.shape}"
    return Fidelity(len(images), same, difference, recorded_engine, measured_engine, engine, error)
