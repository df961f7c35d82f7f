"""The interface of a runner, which judges cases for the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from ptqbench.evaluation.result import CaseResult
from ptqbench.settings.requests import CaseRequest


@dataclass(frozen=True)
class Reference:
    """Machine-independent numbers of a case, to be compared with a committed reference.

    Attributes:
        key: Of the case in the file of its model.
        recipe: Hash of the recipe.
        numbers: Counts, bytes, shares and decibels by name.
    """

    key: str
    recipe: str
    numbers: Mapping[str, float | None]


class CaseRunner(Protocol):
    """Judges and measures cases; does shared work once."""

    def backends(self) -> Mapping[str, str | None]:
        """Registered backends: None, or why the backend cannot run here."""

    def judge(self, case: CaseRequest, gate: str) -> CaseResult:
        """Measure what one gate needs, and judge the case by it."""

    def reference(self, case: CaseRequest) -> Reference:
        """Measure what a committed reference contains."""

    def latency(self, case: CaseRequest, precision: str) -> Callable[[], object]:
        """A call of the ``float32`` or ``int8`` artifact on the input for latency."""

    def machine(self) -> Mapping[str, object]:
        """Facts about this machine."""


def make_runner(config: pytest.Config, folder: Path, workers: int) -> CaseRunner:
    """Make the runner of a session.

    Args:
        config: Of the session.
        folder: Shared by all workers of the session; it need not exist yet.
        workers: How many processes run tests side by side.
    """
    runner: CaseRunner | None = config.hook.pytest_ptqbench_runner(config=config)
    if runner is None:
        from ptqbench.testing.shared_runner import SharedRunner

        runner = SharedRunner(folder, workers)
    return runner
