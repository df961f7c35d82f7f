"""Loaded methods of ExecuTorch: threads, and how a file is called."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from ptqbench.backends.executorch.et_errors import logged_reason, reason_of
from ptqbench.backends.executorch.et_import import captured_errors, runtime

METHOD = "forward"


class Method:
    """The method ``forward`` of a file, or its first one.

    All that ExecuTorch executes in a process shares one pool of threads, which sleep between
    calls, and a loaded method holds on to that pool. So whenever another number of threads is
    wanted, all methods are unloaded before the pool is replaced, and loaded again when called.

    Args:
        source: A file, or its bytes, which the runtime reads for as long as the method lives.
        threads: Number of threads to run with.

    Raises:
        RuntimeError: The runtime cannot load it.
    """

    def __init__(self, source: Path | bytes, threads: int) -> None:
        self._source = source
        self._loaded: Any = None
        _METHODS.add(self)
        self.limits = self._sizes(threads)

    def _sizes(self, threads: int) -> tuple[int, ...]:
        """Sizes of the largest input."""
        meta = self._load(threads).method_meta()
        return tuple(map(int, meta.input_tensor_meta(0).sizes()))

    def __call__(self, images: Tensor, threads: int) -> list[Tensor]:
        """Everything that it returns for a batch that fits.

        Raises:
            RuntimeError: It does not take such images.
        """
        method = self._load(threads)
        try:
            return list(method([images.contiguous()]))
        except Exception as error:  # its errors have no common base
            raise RuntimeError(reason_of(error)) from error

    def unload(self) -> None:
        """Let go of the pool of threads."""
        self._loaded = None

    def _load(self, threads: int) -> Any:
        bindings = runtime()
        if bindings._threadpool_get_thread_count() != threads:
            for method in list(_METHODS):
                method.unload()
            with captured_errors():
                bindings._unsafe_reset_threadpool(threads)
        if self._loaded is None:
            with captured_errors() as log:
                try:
                    self._loaded = _loaded(bindings, self._source)
                except Exception as error:  # as above
                    raise RuntimeError(logged_reason(error, log())) from error
        return self._loaded


_METHODS: WeakSet[Method] = WeakSet()


def _loaded(bindings: Any, source: Path | bytes) -> Any:
    program = (
        bindings._load_program_from_buffer(source)
        if isinstance(source, bytes)
        else bindings._load_program(str(source))
    )
    names = [program.get_method_name(i) for i in range(program.num_methods())]
    return program.load_method(METHOD if METHOD in names else names[0])


class EtModel:
    """A loaded file as a function from images to logits.

    Args:
        source: A file, or its bytes, which are kept.
        threads: Number of threads to run with; None: as many as torch is set to.
    """

    def __init__(self, source: Path | bytes, threads: int | None = None) -> None:
        self._threads = threads
        self._method = Method(source, self._count)

    @property
    def _count(self) -> int:
        return self._threads or torch.get_num_threads()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` float32 of images ``N×C×H×W`` float32.

        A file that takes fewer images at once is called as often as it takes.
        """
        limits = self._method.limits
        if images.dim() != len(limits) or any(
            size > limit for size, limit in zip(images.shape[1:], limits[1:], strict=True)
        ):
            raise RuntimeError(
                f"it takes images of at most {_shape(limits[1:])}, not {_shape(images.shape[1:])}"
            )
        most = max(limits[0], 1)
        if len(images) > most and len(images) % most == 0:
            return torch.cat([self._method(part, self._count)[0] for part in images.split(most)])
        return self._method(images, self._count)[0]


def _shape(sizes: Iterable[int]) -> str:
    return "×".join(map(str, sizes))
