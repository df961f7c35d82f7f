"""Sessions of ONNX Runtime: settings, and how a loaded file is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptqbench.backends.onnxruntime.ort_errors import reason_of

if TYPE_CHECKING:
    from torch import Tensor

LITERAL, ALL = "literal", "all"
"""Optimizations of a graph: none, so that nodes run as they are written, or those of a release."""
EXACT = "session.x64quantprecision"
"""Option that lets CPUs without VNNI execute 8-bit weights with kernels that cannot saturate."""


def create_session(
    source: Path | bytes,
    threads: int,
    *,
    optimizations: str = ALL,
    options: dict[str, str] | None = None,
    optimized: Path | None = None,
    disabled: Sequence[str] = (),
) -> Any:
    """Create a session on the CPU.

    Args:
        source: A file, or the bytes of a model.
        threads: Threads of a call. They sleep between calls: threads that spin take time from
            whatever is timed next.
        optimizations: `ALL` or `LITERAL`.
        options: More entries of the session's configuration.
        optimized: Where the optimized model is written.
        disabled: Names of optimizers that are left out.

    Raises:
        RuntimeError: The runtime cannot load the file.
    """
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # errors are raised as well
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in (options or {}).items():
        settings.add_session_config_entry(key, value)
    levels = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = {
        LITERAL: levels.ORT_DISABLE_ALL,
        ALL: levels.ORT_ENABLE_ALL,
    }[optimizations]
    if optimized is not None:
        settings.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source),
            settings,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(disabled),
        )
    except Exception as error:  # its errors have no common base
        raise RuntimeError(reason_of(error)) from error


class OrtModel:
    """A loaded file as a function from images to logits.

    Args:
        source: A file, or the bytes of a model.
        threads: Number of threads to run with; None: as many as torch is set to.
        options: Entries of the session's configuration.
        optimizations: `ALL` or `LITERAL`.
    """

    def __init__(
        self,
        source: Path | bytes,
        threads: int | None = None,
        options: dict[str, str] | None = None,
        optimizations: str = ALL,
    ) -> None:
        self.source = source
        self.threads = threads
        self.options = options
        self.optimizations = optimizations
        self._count = self.threads or _threads()
        self._session = self._create()

    def _create(self) -> Any:
        return create_session(
            self.source, self._count, optimizations=self.optimizations, options=self.options
        )

    @property
    def session(self) -> Any:
        """The session with as many threads as are wanted now: ORT fixes their number in it."""
        count = self.threads or _threads()
        if count != self._count:
            self._count = count
            self._session = self._create()
        return self._session

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` float32 of images ``N×C×H×W`` float32.

        A file whose number of images is fixed is called as often as it takes.
        """
        import torch

        session = self.session
        fixed = session.get_inputs()[0].shape[0]
        if isinstance(fixed, int) and 0 < fixed < len(images) and len(images) % fixed == 0:
            parts = [run(session, part.numpy()) for part in images.split(fixed)]
            return torch.from_numpy(np.concatenate(parts))
        return torch.from_numpy(run(session, images.numpy()))


def run(session: Any, images: np.ndarray) -> np.ndarray:
    """The first output of a session for images ``N×C×H×W`` float32.

    Raises:
        RuntimeError: It does not take such images.
    """
    values = np.ascontiguousarray(images)
    try:
        (first, *_) = session.run(None, {session.get_inputs()[0].name: values})
    except Exception as error:  # as above
        raise RuntimeError(reason_of(error)) from error
    output: np.ndarray = first
    return output


def _threads() -> int:
    """As many as torch is set to."""
    import torch

    return torch.get_num_threads()
