"""Format numbers for readers: few digits, and a dash for a missing one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from ptqbench.evaluation.result import CaseResult
from ptqbench.gates import GateResult
from ptqbench.gates.gate import unit_of
from ptqbench.settings.data_specifier import CIFAR10, IMAGENET

MISSING = "–"


def number(value: object) -> float | None:
    """Return ``value`` as a number that can be shown, or None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value):
        return float(value)
    return None


def pair(value: object) -> tuple[float, float] | None:
    """Return ``value`` as an interval that can be shown, or None."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        low, high = number(value[0]), number(value[1])
        if low is not None and high is not None:
            return low, high
    return None


def percent(share: float | None, digits: int = 2, unit: str = "") -> str:
    """Format a fraction of 1 in percent.

    Only exactly 1 is written as 100: 99.996 % is not "100.00 %".
    """
    if share is None:
        return MISSING
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) >= 100:
        text = f"{100 - 10**-digits:.{digits}f}"
    return text + unit


def decibel(value: float | None) -> str:
    """Format a signal-to-noise ratio; equal logits have no noise."""
    if value is None:
        return MISSING
    return "equal" if math.isinf(value) and value > 0 else f"{value:.1f} dB"


def significant(value: float | None) -> str:
    """Format a number with three significant digits, or all those before the point."""
    if value is None or math.isinf(value):
        return MISSING
    size = abs(value)
    return f"{value:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2}f}"


def times(value: float | None) -> str:
    """Format a ratio."""
    return MISSING if value is None else f"{value:.2f}×"


def span(interval: tuple[float, float] | None, digits: int = 2) -> str:
    """Format both ends of an interval."""
    if interval is None:
        return ""
    if any(map(math.isinf, interval)):
        return "unbounded"
    return f"{interval[0]:.{digits}f}–{interval[1]:.{digits}f}"


def arrow(before: str, after: str) -> str:
    """Format a change; a dash if both values are missing."""
    return MISSING if before == after == MISSING else f"{before} → {after}"


def gate_number(quantity: str, value: float) -> str:
    """Format a gate's observed number or threshold in its unit.

    Args:
        quantity: What it is: ``GateResult.quantity``.
        value: The number.
    """
    match unit_of(quantity):
        case "share":
            return percent(value, unit=" %")
        case "points":
            return f"{value:+.2f} points"
        case "decibels":
            return decibel(value)
        case "bytes":
            return f"{value:,.0f} bytes"
        case "ratio":
            return times(value)
        case _:
            return f"{value:.4g}"


def gate_interval(quantity: str, interval: tuple[float, float]) -> str:
    """Format the interval of a gate's observed number, in the same unit."""
    match unit_of(quantity):
        case "share":
            return f"{percent(interval[0])}–{percent(interval[1])}"
        case "points":
            return f"{interval[0]:+.2f} to {interval[1]:+.2f}"
        case "decibels":
            return span(interval, 1)
        case _:
            return span(interval)


def gate_needs(quantity: str, threshold: float) -> str:
    """Format the threshold of a gate."""
    most = "at most " if quantity == "max_bytes" else ""
    return f"needs {most}{gate_number(quantity, threshold)}"


def machine_facts(machine: Mapping[str, object]) -> list[str]:
    """Name the facts about a machine that results depend on most, a few words each."""
    facts = [str(machine[key]) for key in ("cpu", "instruction_set") if machine.get(key)]
    if (cores := number(machine.get("physical_cores"))) is not None:
        facts.append(count(int(cores), "core"))
    if (quota := number(machine.get("cpu_quota"))) is not None:
        facts.append(f"quota of {quota:g} CPUs")
    if machine.get("torch"):
        facts.append(f"torch {machine['torch']}")
    return facts


def gate_numbers(gate: GateResult) -> str:
    """Format what a gate observed and needs, as the beginning of a sentence; or nothing."""
    if gate.observed is None or gate.threshold is None:
        return ""
    interval = pair(gate.interval)
    between = f" ({gate_interval(gate.quantity, interval)})" if interval else ""
    observed = gate_number(gate.quantity, gate.observed)
    return f"{observed}{between}, {gate_needs(gate.quantity, gate.threshold)}. "


def source_name(source: str) -> str:
    """Shorten a source of weights or data to its last name, or to that of its data set."""
    kind, colon, _ = source.partition(":")
    if colon and kind in (CIFAR10, IMAGENET):
        return kind
    return PurePath(source).name or source


def published_top1(case: CaseResult) -> str:
    """Format the top-1 published for the weights on ImageNet's validation set, or nothing."""
    before = number(case.facts.get("published_float32_top1"))
    if before is None:
        return ""
    after = number(case.facts.get("published_int8_top1"))
    if after is None:
        return f"published {percent(before)} in float32"
    qat = case.facts.get("published_int8_method") == "QAT"
    trained = ", quantization-aware training" if qat else ""
    engine = f"{case.facts.get('published_int8_engine')}{trained}"
    return f"published {arrow(percent(before), percent(after))} ({engine})"


def count(amount: int, noun: str) -> str:
    """Format a count with its noun: ``1 case``, ``2,000 images``."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"
