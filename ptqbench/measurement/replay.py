"""Load an artifact and run it, in an interpreter that has seen nothing else.

``python -m ptqbench.measurement.replay`` says ``ready`` once it has imported torch, reads one
line of JSON from stdin (:class:`Job`), writes the logits and prints the engine that computed
them. It ends if nobody has a job for it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ptqbench.backends.torch_engines.artifact import load_script, reason_of


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        artifact: Path of the TorchScript file.
        images: Path of an ``.npy`` file, ``N×C×H×W`` float32.
        logits: Path of the ``.npy`` file to write, ``N×K`` float32.
        engine: torch quantized engine to load and run it under.
        threads: Threads to run with.
    """

    artifact: str
    images: str
    logits: str
    engine: str
    threads: int = 1


def main() -> int:
    """Do the job that stdin describes.

    Returns:
        Exit code: 0, or 1 with the reason as the last line of stderr.
    """
    print("ready", flush=True)
    line = sys.stdin.readline()
    if not line.strip():
        return 0
    job = Job(**json.loads(line))
    torch.set_num_threads(job.threads)
    try:
        # The engine must be set before loading: weights are packed for it while loading.
        script = load_script(Path(job.artifact), job.engine)
        with torch.inference_mode():
            logits = script(torch.from_numpy(np.load(job.images)))
    except (RuntimeError, ValueError, OSError) as error:
        print(reason_of(error), file=sys.stderr)
        return 1
    np.save(job.logits, logits.numpy())
    print(json.dumps({"engine": torch.backends.quantized.engine}))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking torch down takes half a second
