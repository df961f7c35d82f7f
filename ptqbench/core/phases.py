"""Add up the time of a run by phase, forward passes apart from other work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

INSPECTION = "inspection images"
"""Name of the phase of forward passes made to inspect a build and its artifact."""


@dataclass(frozen=True)
class Phase:
    """Wall time spent on one kind of work.

    Attributes:
        name: Describes the work.
        seconds: Wall time in s, summed over all repetitions.
        forward: Whether it consists of forward passes, which every run needs.
    """

    name: str
    seconds: float
    forward: bool


class Phases:
    """Sums of wall time by name; a nested phase is not counted twice."""

    def __init__(self) -> None:
        self._phases: dict[str, Phase] = {}
        self._inside: list[float] = []

    @contextmanager
    def measure(self, name: str, forward: bool = False) -> Iterator[None]:
        """Time the body of a ``with`` statement under ``name``.

        The time of a phase that is measured inside is subtracted from this one.
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
        """Return all phases in the order in which they first ended."""
        return tuple(self._phases.values())
