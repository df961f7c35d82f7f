"""What a child writes down while it works, so that its end loses one case at most."""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ptqbench.backends.torch_engines.torchscript import reason_of


class Journal:
    """A file that records are appended to, each whole and at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, kind: str, **record: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **record}) + "\n")


def settle(journal: Journal, kind: str, name: str, make: Callable[[], dict[str, Any]]) -> None:
    """Do one case, whatever comes of it, and write it down."""
    journal.write("begin", case=name)
    begun = time.perf_counter()
    found = make()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
    seconds = round(time.perf_counter() - begun, 1)
    journal.write(kind, case=name, seconds=seconds, peak_mb=peak, **found)
    give_back_memory()


def give_back_memory() -> None:
    """Return what is free to the system: the largest models leave little for the next case."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library keeps it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def said(error: Exception) -> str:
    """The first line of what was raised, with its kind where that says more."""
    reason = reason_of(error)
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return first if isinstance(error, RuntimeError) else f"{type(error).__name__}: {first}"
