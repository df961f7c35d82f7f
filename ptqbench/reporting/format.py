"""How numbers are written: few digits, and a dash where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ptqbench.gates.gate import GateResult

MISSING = "–"
_SHARES = ("accuracy", "reference_top1", "top5", "agreement")
"""Gates and criteria whose number is a fraction of 1."""
_RATIOS = ("size", "size_ratio", "speedup")
"""Gates and criteria whose number says how many times."""


def number(value: object) -> float | None:
    """``value`` as a number that can be shown, or None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value):
        return float(value)
    return None


def pair(value: object) -> tuple[float, float] | None:
    """``value`` as an interval that can be shown, or None."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        low, high = number(value[0]), number(value[1])
        if low is not None and high is not None:
            return low, high
    return None


def percent(share: float | None, digits: int = 2, unit: str = "") -> str:
    """A fraction of 1 in percent.

    Only what is exactly everything is written as 100: 99.996 % is not "100.00 %".
    """
    if share is None:
        return MISSING
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) >= 100:
        text = f"{100 - 10**-digits:.{digits}f}"
    return text + unit


def decibel(value: float | None) -> str:
    """A signal-to-noise ratio; equal logits have no noise."""
    if value is None:
        return MISSING
    return "equal" if math.isinf(value) and value > 0 else f"{value:.1f} dB"


def significant(value: float | None) -> str:
    """Three digits that say something, never fewer than those before the point."""
    if value is None or math.isinf(value):
        return MISSING
    size = abs(value)
    return f"{value:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2}f}"


def times(value: float | None) -> str:
    """How many times."""
    return MISSING if value is None else f"{value:.2f}×"


def span(interval: tuple[float, float] | None, digits: int = 2) -> str:
    """Both ends of an interval."""
    if interval is None:
        return ""
    if any(map(math.isinf, interval)):
        return "unbounded"
    return f"{interval[0]:.{digits}f}–{interval[1]:.{digits}f}"


def arrow(before: str, after: str) -> str:
    """From one to the other; a dash where there is neither."""
    return MISSING if before == after == MISSING else f"{before} → {after}"


def gate_number(quantity: str, value: float) -> str:
    """A gate's observed number or threshold in the unit that its column shows.

    Args:
        quantity: What it is: ``GateResult.quantity``.
        value: The number.
    """
    if quantity in _SHARES:
        return percent(value, unit=" %")
    if quantity == "accuracy_points":
        return f"{value:+.2f} points"
    if quantity == "sqnr_db":
        return decibel(value)
    if quantity == "max_bytes":
        return f"{value:,.0f} bytes"
    return times(value) if quantity in _RATIOS else f"{value:.4g}"


def gate_interval(quantity: str, interval: tuple[float, float]) -> str:
    """The interval of a gate's observed number, in the same unit."""
    if quantity in _SHARES:
        return f"{percent(interval[0])}–{percent(interval[1])}"
    if quantity == "accuracy_points":
        return f"{interval[0]:+.2f} to {interval[1]:+.2f}"
    if quantity == "sqnr_db":
        return span(interval, 1)
    return span(interval)


def gate_needs(quantity: str, threshold: float) -> str:
    """What a gate asks for."""
    most = "at most " if quantity == "max_bytes" else ""
    return f"needs {most}{gate_number(quantity, threshold)}"


def machine_facts(machine: Mapping[str, object]) -> list[str]:
    """The facts about a machine that numbers depend on most, each as a few words."""
    facts = [str(machine[key]) for key in ("cpu", "instruction_set") if machine.get(key)]
    if (cores := number(machine.get("physical_cores"))) is not None:
        facts.append(count(int(cores), "core"))
    if (quota := number(machine.get("cpu_quota"))) is not None:
        facts.append(f"quota of {quota:g} CPUs")
    if machine.get("torch"):
        facts.append(f"torch {machine['torch']}")
    return facts


def gate_numbers(gate: GateResult) -> str:
    """What a gate observed and what it needs, as the beginning of a sentence; or nothing."""
    if gate.observed is None or gate.threshold is None:
        return ""
    interval = pair(gate.interval)
    between = f" ({gate_interval(gate.quantity, interval)})" if interval else ""
    observed = gate_number(gate.quantity, gate.observed)
    return f"{observed}{between}, {gate_needs(gate.quantity, gate.threshold)}. "


def count(amount: int, noun: str) -> str:
    """An amount of something: ``1 case``, ``2,000 images``."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"
