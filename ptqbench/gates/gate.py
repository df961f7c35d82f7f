"""What every gate shares: evidence in, a verdict with its numbers out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from ptqbench.core.registry import Registry
from ptqbench.settings.thresholds import Thresholds

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy import Accuracy
    from ptqbench.measurement.conversion import Conversion
    from ptqbench.measurement.fidelity import Fidelity
    from ptqbench.measurement.fusion import Fusion
    from ptqbench.measurement.intervals import Estimate
    from ptqbench.measurement.saturation import Saturation
    from ptqbench.measurement.size import Size
    from ptqbench.measurement.speed import Speed

M = TypeVar("M")


class Verdict(StrEnum):
    """What a gate says.

    ``INCONCLUSIVE``: the interval straddles the threshold after the bounded top-up.
    ``UNVERIFIED``: it could not be measured here. Neither is ever shown as green.
    """

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    UNVERIFIED = "unverified"


@dataclass(frozen=True)
class GateResult:
    """A verdict and what it rests on.

    Attributes:
        name: Name of the gate.
        verdict: What it says.
        observed: The measured number, if there is one.
        threshold: What ``observed`` was held against, if there is one.
        interval: 95 % interval of ``observed``, if it is an estimate.
        n: Sample size, if there is one.
        detail: A sentence or two: what was found, and where to look if it is not a pass.
        criterion: Name of the threshold that ``threshold`` is, where the gate knows several:
            the one that decided.
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
        """What ``observed`` is: the criterion, or what the gate is called."""
        return self.criterion or self.name


@dataclass(frozen=True)
class Evidence:
    """Everything that was measured about a case; a gate looks at its part.

    Attributes:
        thresholds: What is asked for.
        instruction_set: Instruction set of this CPU, a key of ``thresholds.speedup``.
        accuracy: Paired accuracy, or None if it was not measured.
        size: Sizes of the artifacts, or None if they were not measured.
        speed: Speedup, or None if it was not measured.
        fusion: What was found about fusion, or None if it was not looked at.
        conversion: What was found about conversion, likewise.
        fidelity: What a fresh process made of the file, likewise.
        saturation: The int8 layers against exact arithmetic, likewise.
        kernels_for: Instruction sets that the backend's kernels are written for; empty: any.
        unavailable: Why nothing could be measured; every gate is then unverified.
        missing: Why a measurement is None, by the name of its field.
    """

    thresholds: Thresholds
    instruction_set: str
    accuracy: Accuracy | None = None
    size: Size | None = None
    speed: Speed | None = None
    fusion: Fusion | None = None
    conversion: Conversion | None = None
    fidelity: Fidelity | None = None
    saturation: Saturation | None = None
    kernels_for: tuple[str, ...] = ()
    unavailable: str | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


Gate = Callable[[Evidence], GateResult]
GATES: Registry[Gate] = Registry("gate")


def gate(name: str, *, needs: str) -> Callable[[Callable[[Evidence, M], GateResult]], Gate]:
    """Register a function as the gate ``name``.

    The function receives the evidence and the measurement that it needs. It is not
    called where that measurement is missing: the gate is then unverified.

    Args:
        name: Name of the gate.
        needs: Field of ``Evidence`` that the gate judges.

    Raises:
        ValueError: The name is taken, or ``Evidence`` has no such field.
    """
    if needs not in Evidence.__dataclass_fields__:
        raise ValueError(f"The gate {name!r} needs {needs!r}, which evidence does not have.")

    def register(judge: Callable[[Evidence, M], GateResult]) -> Gate:
        @wraps(judge)
        def guarded(evidence: Evidence) -> GateResult:
            if evidence.unavailable is not None:
                return unverified(name, evidence.unavailable)
            measured: M | None = getattr(evidence, needs)
            if measured is None:
                return unverified(
                    name, evidence.missing.get(needs, f"The {needs} was not measured.")
                )
            return judge(evidence, measured)

        return GATES.add(name, guarded)

    return register


def evaluate(evidence: Evidence, names: Iterable[str] | None = None) -> tuple[GateResult, ...]:
    """Put the evidence through gates, in the order of their registration.

    Args:
        evidence: What was measured.
        names: Gates to ask, by name; by default all.

    Raises:
        UnknownNameError: There is no gate of such a name.
    """
    chosen = GATES.names() if names is None else list(names)
    return tuple(GATES.get(name)(evidence) for name in chosen)


def decide(estimate: Estimate, threshold: float) -> Verdict:
    """Hold an estimate, of which more is better, against a threshold.

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
    """The result of a gate that held an estimate against a threshold."""
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
    """The result of a gate that could not be verified, with what was observed anyway."""
    return GateResult(
        name=name,
        verdict=Verdict.UNVERIFIED,
        observed=None if estimate is None else estimate.value,
        threshold=threshold,
        interval=None if estimate is None else (estimate.low, estimate.high),
        n=None if estimate is None else estimate.n,
        detail=reason,
    )
