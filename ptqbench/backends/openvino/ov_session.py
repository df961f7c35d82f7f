"""Compiled models of OpenVINO: settings, and how a loaded file is called."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptqbench.backends.openvino.ov_errors import reason_of
from ptqbench.backends.openvino.ov_import import import_openvino

if TYPE_CHECKING:
    from torch import Tensor


@functools.cache
def core() -> Any:
    """OpenVINO's entry point, with its plugin for the CPU."""
    return import_openvino().Core()


def settings(threads: int) -> dict[str, Any]:
    """How every model is executed, float32 and int8.

    Args:
        threads: Threads of a call.
    """
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Else float32 becomes bfloat16 or float16 where the CPU can.
        "INFERENCE_PRECISION_HINT": "f32",
        # Else threads keep to cores that other work of this process is timed on.
        "ENABLE_CPU_PINNING": False,
        # Compiled models are not kept: what is measured is the file.
        "CACHE_DIR": "",
    }


def read_model(source: Path | bytes) -> Any:
    """Read an IR file, or the bytes of an ONNX model.

    Raises:
        RuntimeError: The runtime cannot read it.
    """
    try:
        return core().read_model(source if isinstance(source, bytes) else str(source))
    except Exception as error:  # its errors have no common base
        raise RuntimeError(reason_of(error)) from error


def compile_model(model: Any, threads: int) -> Any:
    """Compile a model for the CPU.

    Raises:
        RuntimeError: The runtime cannot compile it.
    """
    try:
        return core().compile_model(model, "CPU", settings(threads))
    except Exception as error:  # as above
        raise RuntimeError(reason_of(error)) from error


class Request:
    """A compiled model with room for what it computes.

    Args:
        compiled: The compiled model.
    """

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._shapes: set[tuple[int, ...]] = set()

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return all outputs of the model for images ``N×C×H×W`` float32.

        With one thread, ``infer`` loses an error: it returns whatever lay in memory, and the next
        call may take the process down. ``wait`` raises it, but hands over to another thread, which
        takes time. An operator that does not fit a shape fails at once, so the first images of a
        shape are waited for.

        Raises:
            RuntimeError: It does not take such images.
        """
        values = [np.ascontiguousarray(images)]
        shape = tuple(images.shape)
        try:
            if shape in self._shapes:
                self._request.infer(values, share_inputs=True)
            else:
                self._request.start_async(values, share_inputs=True)
                self._request.wait()
        except Exception as error:  # as above
            raise RuntimeError(reason_of(error)) from error
        self._shapes.add(shape)
        count = len(self._request.model_outputs)
        return [np.array(self._request.get_output_tensor(i).data) for i in range(count)]


def of_shape(model: Any, shape: Sequence[int]) -> Any:
    """A copy of a model for images of one shape, or itself if it does not allow that."""
    copied = model.clone()
    try:
        copied.reshape(list(shape))
    except RuntimeError:
        return model
    return copied


class OvModel:
    """A loaded file as a function from images to logits.

    It is compiled for images of any number and size, and once more for single images of one size:
    fixed sizes save a few per cent of the time, which in practice is spent on single images.

    Args:
        source: A file, the bytes of an ONNX model, or a model that has been read.
        threads: Number of threads to run with; None: as many as torch is set to.
    """

    def __init__(self, source: Any, threads: int | None = None) -> None:
        self._source = source
        self._threads = threads
        self._model = read_model(source) if isinstance(source, Path | bytes) else source
        self._requests: dict[bool, tuple[object, Request]] = {}

    def compiled(self, images: Tensor) -> Any:
        """The compiled model that images are passed to, with as many threads as are wanted now."""
        return self._request(images, len(images) == 1).compiled

    def _request(self, images: Tensor, single: bool) -> Request:
        import torch

        threads = self._threads or torch.get_num_threads()
        single = single and bool(self._model.is_dynamic())
        key = (threads, tuple(images.shape) if single else ())
        if single not in self._requests or self._requests[single][0] != key:
            self._requests.pop(single, None)
            model = of_shape(self._model, images.shape) if single else self._model
            self._requests[single] = (key, Request(compile_model(model, threads)))
        return self._requests[single][1]

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` float32 of images ``N×C×H×W`` float32.

        A file whose number of images is fixed is called as often as it takes.
        """
        import torch

        number = self._model.input(0).get_partial_shape()[0]
        fixed = number.get_length() if number.is_static else 0
        if 0 < fixed < len(images) and len(images) % fixed == 0:
            return torch.cat([self._logits(part) for part in images.split(fixed)])
        return self._logits(images)

    def any_size(self, images: Tensor) -> Tensor:
        """Logits as those of a call, from the form that is compiled for images of any size."""
        return self._run(self._request(images, False), images)

    def _logits(self, images: Tensor) -> Tensor:
        return self._run(self._request(images, len(images) == 1), images)

    def _run(self, request: Request, images: Tensor) -> Tensor:
        import torch

        return torch.from_numpy(request.run(images.numpy())[0])
