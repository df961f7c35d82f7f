"""Run a model of ONNX Runtime on arrays; for another process, which imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptqbench.backends.onnxruntime.ort_session import ALL, LITERAL, create_session, run


def run_literally(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    """Run a model operator by operator, without any optimization."""
    return _outputs(source, inputs, threads, LITERAL)


def run_optimized(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    """Run a model as it ships."""
    return _outputs(source, inputs, threads, ALL)


def _outputs(
    source: Path, inputs: Sequence[np.ndarray], threads: int, optimizations: str
) -> list[np.ndarray]:
    session = create_session(source, threads, optimizations=optimizations)
    return [run(session, images) for images in inputs]
