"""A gate as a record: what it needs, what it requires, and a pure function to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ptqbench.core.registry import Registry
from ptqbench.gates.verdict import Verdict
from ptqbench.settings.thresholds import Thresholds

if TYPE_CHECKING:
    from ptqbench.measurement.intervals import Estimate

M = TypeVar("M")

Unit = Literal["share", "points", "decibels", "bytes", "ratio", "count"]
"""Unit of an observed number: a fraction of 1, percentage points, dB, bytes, times, a number."""


@dataclass(frozen=True)
class GateResult:
    """A verdict and what it rests on.

    Attributes:
        name: Name of the gate.
        verdict: The verdict.
        observed: The measured number, if there is one.
        threshold: What ``observed`` was compared with, if there is such a number.
        interval: 95 % interval of ``observed``, if it is an estimate.
        n: Sample size, if there is one.
        detail: A sentence or two: what was observed, and where to look if it is not a pass.
        criterion: Name of the threshold that ``threshold`` is, for gates with several: the one
            that decided.
    """

    name: str
    verdict: Verdict
    observed: float | None
    threshold: float | None
    interval: tuple[float, float] | None
    n: int | None
    detail: str
    criterion: str | None = None

    @property
    def quantity(self) -> str:
        """What ``observed`` is: the criterion, or the name of the gate."""
        return self.criterion or self.name


@dataclass(frozen=True)
class Evidence:
    """Everything that was measured about a case; a gate reads its part.

    Attributes:
        thresholds: What is required.
        instruction_set: Instruction set of this CPU, a key of ``thresholds.speedup``.
        measurements: Results by the names that gates need them under.
        missing: Why a measurement is missing, a sentence by its name.
        kernels_for: Instruction sets that the backend's kernels are written for; empty: any.
        unavailable: Why nothing could be measured; every gate is then unverified.
    """

    thresholds: Thresholds
    instruction_set: str
    measurements: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    kernels_for: tuple[str, ...] = ()
    unavailable: str | None = None


@dataclass(frozen=True)
class Gate:
    """A release gate.

    Attributes:
        name: Its name, in reports, settings and tests.
        summary: The question that it answers.
        order: Its place in reports; what is wrong with the structure comes before its effects.
        measurement: Name of the measurement that it needs.
        thresholds: Names of the thresholds that it requires, as in the settings.
        units: Unit of what it observes, by the name of the quantity.
        judge: Verdict on the measurement, a pure function.
    """

    name: str
    summary: str
    order: int
    measurement: str
    thresholds: tuple[str, ...]
    units: Mapping[str, Unit]
    judge: Callable[[Evidence, Any], GateResult]

    def __call__(self, evidence: Evidence) -> GateResult:
        """Judge the evidence; unverified if the measurement that the gate needs is missing."""
        if evidence.unavailable is not None:
            return unverified(self.name, evidence.unavailable)
        measurement = evidence.measurements.get(self.measurement)
        if measurement is None:
            default = f"The {self.measurement} was not measured."
            return unverified(self.name, evidence.missing.get(self.measurement, default))
        return self.judge(evidence, measurement)


GATES: Registry[Gate] = Registry("gate")


def gate(
    name: str,
    *,
    summary: str,
    order: int,
    measurement: str,
    units: Mapping[str, Unit],
    thresholds: tuple[str, ...] = (),
) -> Callable[[Callable[[Evidence, M], GateResult]], Gate]:
    """Register a function as a gate: from evidence and a measurement to a result.

    Args:
        name: Name of the gate.
        summary: The question that it answers.
        order: Its place in reports.
        measurement: Name of the measurement that it needs.
        units: Unit of what it observes, by the name of the quantity.
        thresholds: Names of the thresholds that it requires.

    Raises:
        ValueError: The name is taken.
    """

    def register(judge: Callable[[Evidence, M], GateResult]) -> Gate:
        record = Gate(name, summary, order, measurement, thresholds, dict(units), judge)
        return GATES.add(name, record)

    return register


def gates_in_order() -> list[Gate]:
    """All registered gates in the order of reports."""
    return sorted(GATES, key=lambda gate: gate.order)


def unit_of(quantity: str) -> Unit:
    """Unit of the quantity that a result observes; a plain number if no gate knows it."""
    units = (gate.units[quantity] for gate in GATES if quantity in gate.units)
    return next(units, "count")


def evaluate(evidence: Evidence, names: Iterable[str] | None = None) -> tuple[GateResult, ...]:
    """Put the evidence through gates.

    Args:
        evidence: What was measured.
        names: Names of gates, in the order of the results; by default all, in the order of reports.

    Raises:
        UnknownNameError: There is no gate of such a name.
    """
    gates = gates_in_order() if names is None else [GATES.get(name) for name in names]
    return tuple(gate(evidence) for gate in gates)


def decide(estimate: Estimate, threshold: float) -> Verdict:
    """Compare an estimate, of which more is better, with a threshold.

    Pass if all of the interval is at or above the threshold, fail if all of it is below,
    else inconclusive. A limit that is not a number never passes.
    """
    if estimate.low >= threshold:
        return Verdict.PASS
    if estimate.high < threshold:
        return Verdict.FAIL
    return Verdict.INCONCLUSIVE


def judged(
    name: str, verdict: Verdict, estimate: Estimate, threshold: float, detail: str
) -> GateResult:
    """Build the result of a gate that compared an estimate with a threshold."""
    return GateResult(
        name=name,
        verdict=verdict,
        observed=estimate.value,
        threshold=threshold,
        interval=(estimate.low, estimate.high),
        n=estimate.n,
        detail=detail,
    )


def unverified(
    name: str,
    reason: str,
    estimate: Estimate | None = None,
    threshold: float | None = None,
) -> GateResult:
    """Build the result of a gate that could not be verified, with what was observed anyway."""
    return GateResult(
        name=name,
        verdict=Verdict.UNVERIFIED,
        observed=None if estimate is None else estimate.value,
        threshold=threshold,
        interval=None if estimate is None else (estimate.low, estimate.high),
        n=None if estimate is None else estimate.n,
        detail=reason,
    )
