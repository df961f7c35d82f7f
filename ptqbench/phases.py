"""Where the time of a run goes, and how much of it is forward passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """Wall time spent on one kind of work.

    Attributes:
        name: What was done.
        seconds: Wall time in s, summed over every time it was done.
        forward: Whether it is forward passes, which no run can do without.
    """

    name: str
    seconds: float
    forward: bool


class Phases:
    """Adds up wall time by name; phases do not nest."""

    def __init__(self) -> None:
        self._phases: dict[str, Phase] = {}

    @contextmanager
    def measure(self, name: str, forward: bool = False) -> Iterator[None]:
        """Time the body of a ``with`` statement under ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started, forward)

    def add(self, name: str, seconds: float, forward: bool = False) -> None:
        """Add ``seconds`` to the phase called ``name``."""
        before = self._phases[name].seconds if name in self._phases else 0.0
        self._phases[name] = Phase(name, before + seconds, forward)

    def records(self) -> tuple[Phase, ...]:
        """All phases in the order in which they first began to count."""
        return tuple(self._phases.values())
