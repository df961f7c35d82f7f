"""Combine several conditions into one gate result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptqbench.gates.gate import GateResult, decide
from ptqbench.gates.verdict import SEVERITY, Verdict
from ptqbench.measurement.intervals import Estimate


@dataclass(frozen=True)
class Condition:
    """A condition of a gate: an estimate, of which more is better, against a threshold.

    Attributes:
        criterion: Name of the threshold.
        estimate: What was measured; None if it could not be.
        threshold: What it must reach, in the unit of the estimate.
        detail: Observation and requirement, as part of a sentence.
    """

    criterion: str
    estimate: Estimate | None
    threshold: float
    detail: str

    @property
    def verdict(self) -> Verdict:
        """Pass, fail or inconclusive; unverified if there is no estimate."""
        if self.estimate is None:
            return Verdict.UNVERIFIED
        return decide(self.estimate, self.threshold)


def worst(conditions: Sequence[Condition]) -> Condition:
    """Find the condition that decides: the first of those with the worst verdict."""
    return min(conditions, key=lambda condition: SEVERITY.index(condition.verdict))


def judged_by(name: str, conditions: Sequence[Condition], detail: str) -> GateResult:
    """Build the result of a gate whose conditions must all hold, with the deciding one's numbers.

    Args:
        name: Name of the gate.
        conditions: At least one; the first is what the gate is about.
        detail: Observations on all of them.
    """
    deciding = worst(conditions)
    estimate = deciding.estimate
    return GateResult(
        name=name,
        verdict=deciding.verdict,
        observed=None if estimate is None else estimate.value,
        threshold=deciding.threshold,
        interval=None if estimate is None else (estimate.low, estimate.high),
        n=None if estimate is None else estimate.n,
        detail=detail,
        criterion=deciding.criterion,
    )
