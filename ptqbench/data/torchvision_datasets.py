"""Import torchvision's data sets, and keep what they print off standard output."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from ptqbench.models.import_torchvision import import_torchvision


def import_datasets() -> Any:
    """Import ``torchvision.datasets``."""
    import_torchvision()
    return importlib.import_module("torchvision.datasets")


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Redirect messages of torchvision: they are not part of a result on standard output."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
