"""Backends that take down the process which loads an int8 file: what a bad file does to torch.

Importing this module registers them, in another process too; ``registered`` takes them away again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.tiny_networks import ANY

from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TorchBackend


@dataclass(frozen=True)
class Deadly(TorchBackend):
    """Loads float32 files as any engine does."""

    runtime: str = "deadly"

    def load(self, path: Path, threads: int | None = None) -> Model:
        if "float32" in path.name:
            return super().load(path, threads)
        if self.name == "killing":
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(3600)
        raise AssertionError


KILLING, HANGING = (Deadly(name, ANY, (), (), None) for name in ("killing", "hanging"))


@contextmanager
def registered() -> Iterator[None]:
    for backend in (KILLING, HANGING):
        BACKENDS.replace(backend.name, backend)
    yield
    for backend in (KILLING, HANGING):
        BACKENDS._entries.pop(backend.name, None)


for _backend in (KILLING, HANGING):
    BACKENDS.replace(_backend.name, _backend)
