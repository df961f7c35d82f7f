"""Run a model of OpenVINO on arrays; for another process, which imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptqbench.backends.openvino.ov_session import Request, compile_model, of_shape, read_model


def run_any_size(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    """Run a model in the form that is compiled for images of any number and size."""
    request = Request(compile_model(read_model(source), threads))
    return [request.run(images)[0] for images in inputs]


def run_both_forms(source: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    """Run a model as images of any size are passed to it, and as single ones are."""
    model = read_model(source)
    for images in inputs:
        if model.is_dynamic():
            Request(compile_model(of_shape(model, images.shape), threads)).run(images)
    return run_any_size(source, inputs, threads)
