"""Run a model in a process of its own, where a runtime that crashes or hangs harms nothing else.

The process imports the runtime and numpy, but no torch: it starts in a fraction of a second.
"""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptqbench.core.child_process import end_group, start_python

TIMEOUT_S = 600.0
"""How long loading and running may take."""
_GRACE_S = 1.0
_JOB, _ERROR = "job.json", "error.txt"


class RuntimeDiesError(Exception):
    """The process that ran a model crashed or hung; carries how."""


def run_alone(
    function: str, source: Path, inputs: Sequence[np.ndarray], threads: int
) -> list[np.ndarray]:
    """Load a model in another process, and run it.

    Args:
        function: Its module and name, ``module:function``. It takes the path of a model, a list
            of inputs ``N×C×H×W`` float32 and a number of threads, and returns as many arrays.
        source: The model.
        inputs: What it is run on, one after another.
        threads: Threads of a call.

    Returns:
        Its output for each input.

    Raises:
        RuntimeDiesError: The process crashed, or did not finish.
        RuntimeError: The model cannot be loaded, or does not take such inputs.
    """
    with tempfile.TemporaryDirectory(prefix="ptqbench-") as name, tempfile.TemporaryFile() as words:
        folder = Path(name)
        for place, value in enumerate(inputs):
            np.save(_input(folder, place), value)
        job = {"function": function, "source": str(source.resolve()), "folder": name}
        text = json.dumps({**job, "inputs": len(inputs), "threads": threads})
        process = start_python(
            __name__, "serve", stdout=subprocess.DEVNULL, stderr=words, new_group=True
        )
        try:
            process.communicate(text.encode(), TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise RuntimeDiesError(f"it did not finish within {TIMEOUT_S:g} s") from None
        finally:
            end_group(process, _GRACE_S)
        code = process.returncode
        if code == 0:
            return [np.load(_output(folder, place)) for place in range(len(inputs))]
        if code > 0 and (folder / _ERROR).exists():
            raise RuntimeError((folder / _ERROR).read_text("utf-8"))
        if code < 0:
            raise RuntimeDiesError(f"its process was killed by {signal.Signals(-code).name}")
        words.seek(0)
        lines = words.read().decode("utf-8", "replace").strip().splitlines()
        raise RuntimeDiesError(lines[-1] if lines else f"its process ended with code {code}")


def serve() -> None:
    """Do the job that is described on standard input: the other process."""
    job = json.loads(sys.stdin.read())
    folder = Path(job["folder"])
    module, _, name = job["function"].partition(":")
    inputs = [np.load(_input(folder, place)) for place in range(job["inputs"])]
    function = getattr(importlib.import_module(module), name)
    try:
        outputs = function(Path(job["source"]), inputs, job["threads"])
    except Exception as error:  # runtimes have errors of their own
        (folder / _ERROR).write_text(str(error), "utf-8")
        sys.exit(1)
    for place, value in enumerate(outputs):
        np.save(_output(folder, place), value)


def _input(folder: Path, place: int) -> Path:
    return folder / f"input-{place}.npy"


def _output(folder: Path, place: int) -> Path:
    return folder / f"output-{place}.npy"
