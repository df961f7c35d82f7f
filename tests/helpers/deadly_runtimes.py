"""What another process may run instead of a runtime: functions that crash, hang, fail or tell."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def kill(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def kill_int8(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    return kill(source, inputs, threads) if "int8" in source.name else list(inputs)


def kill_float32(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    return list(inputs) if "int8" in source.name else kill(source, inputs, threads)


def hang(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    time.sleep(3600)
    raise AssertionError


def fail(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    raise ValueError(f"no {source.name} with {threads} threads")


def leave(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    print("the last words", file=sys.stderr, flush=True)
    os._exit(3)


def torch_is_there(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    from ptqbench.backends.onnxruntime import ort_trial
    from ptqbench.backends.openvino import ov_trial

    del ort_trial, ov_trial
    return [images * 2 + ("torch" in sys.modules) for images in inputs]
