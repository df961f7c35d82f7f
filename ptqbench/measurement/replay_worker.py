"""The other process of ``measurement.replay``: load artifacts and run them.

It writes ``ready`` once it has imported torch. It then reads jobs from stdin, one line of JSON
each, and answers each with a line of JSON. It ends with its stdin.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import torch

from ptqbench.backends import foreign_artifact
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.errors import UserError
from ptqbench.measurement.replay import READY, Job


def serve() -> NoReturn:
    """Do jobs until stdin ends."""
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _answers() as answers:
        print(READY, file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(_do(Job(**json.loads(line)))), file=answers, flush=True)
    sys.stderr.flush()
    os._exit(0)  # taking torch down takes half a second


@contextmanager
def _answers() -> Iterator[IO[str]]:
    """What was stdout, for answers alone: what libraries and files print goes to stderr."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        yield answers


def _do(job: Job) -> dict[str, object]:
    """Do a job, and answer it."""
    try:
        importlib.import_module(job.module)
        backend = BACKENDS.get(job.backend)
    except Exception as error:  # a custom backend that only the parent could import
        return {"unavailable": f"{type(error).__name__}: {error}"}
    torch.set_num_threads(job.threads)
    folder = Path(job.folder)
    images = torch.from_numpy(np.load(folder / "images.npy"))
    try:
        if job.task == "try":
            latency = torch.from_numpy(np.load(folder / "latency.npy"))
            path = Path(job.artifact)
            return asdict(foreign_artifact.try_out(backend, path, images, job.classes, latency))
        with torch.inference_mode():
            logits = backend.load(Path(job.artifact), job.threads)(images)
        np.save(folder / "logits.npy", logits.numpy())
        return {"engine": backend.active_engine()}
    except foreign_artifact.NotRunningError as problem:
        return {"error": str(problem), "loads": problem.loads}
    except UserError as problem:
        return {"refusal": str(problem)}
    except Exception as error:  # there is no list of what foreign files raise
        return {"error": backend.reason(error), "loads": False}
