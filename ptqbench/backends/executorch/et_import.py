"""Import the parts of ExecuTorch: what runs files, which is small, and what writes them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from ptqbench.core.step_errors import reason_of


def runtime() -> Any:
    """Return ExecuTorch's own bindings of its runtime.

    The module that documents them imports the exporter as well, which takes several seconds.
    """
    import torch  # its libraries have to be there first
    from executorch.extension.pybindings import _C

    del torch
    return _C


@contextlib.contextmanager
def exporter() -> Iterator[None]:
    """Let ExecuTorch's exporter, and torchao, say nothing of what they lack."""
    names = ("torch.export", "torchao", "executorch", "root")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), captured_errors():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def captured_errors() -> Iterator[Callable[[], str]]:
    """Keep what C++ writes to the standard error, and yield a function that returns it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)

        def written() -> str:
            file.seek(0)
            return file.read().decode("utf-8", "replace")

        os.dup2(file.fileno(), 2)
        try:
            yield written
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)


def broken() -> str:
    """Why the installed ExecuTorch cannot be used; empty if it can."""
    try:
        names = runtime()._get_registered_backend_names()
    except Exception as error:  # a broken installation raises anything
        return reason_of(error)
    return "" if "XnnpackBackend" in names else "it was built without XNNPACK"
