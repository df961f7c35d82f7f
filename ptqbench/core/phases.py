"""Where the time of a run goes, and how much of it is forward passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

INSPECTION = "inspection images"
"""The forward passes of what looks inside a build and its file, and nothing else of it."""


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
    """Adds up wall time by name; what a phase inside another takes is not counted twice."""

    def __init__(self) -> None:
        self._phases: dict[str, Phase] = {}
        self._inside: list[float] = []

    @contextmanager
    def measure(self, name: str, forward: bool = False) -> Iterator[None]:
        """Time the body of a ``with`` statement under ``name``.

        A phase that is measured inside takes its time away from this one.
        """
        self._inside.append(0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.add(name, seconds - self._inside.pop(), forward)
            if self._inside:
                self._inside[-1] += seconds

    def add(self, name: str, seconds: float, forward: bool = False) -> None:
        """Add ``seconds`` to the phase called ``name``."""
        before = self._phases[name].seconds if name in self._phases else 0.0
        self._phases[name] = Phase(name, before + seconds, forward)

    def records(self) -> tuple[Phase, ...]:
        """All phases in the order in which they first began to count."""
        return tuple(self._phases.values())
