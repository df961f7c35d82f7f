"""Records of the tests' verdicts, merged into one report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates import Evidence, gates_in_order
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import SEVERITY, Verdict
from ptqbench.reporting.format import count, gate_interval, gate_needs, gate_number, pair

_Key = tuple[str, str, str, str]


def merge(cases: Iterable[CaseResult]) -> tuple[CaseResult, ...]:
    """One record per case out of one per gate, in the order in which cases first appear.

    A gate that judged a case several times (in two modules, with two markers) counts with its
    worst verdict.
    """
    together: dict[_Key, CaseResult] = {}
    for case in cases:
        key = (case.model, case.weights, case.backend, case.data)
        before = together.get(key)
        if before is None:
            together[key] = case
            continue
        together[key] = replace(
            before,
            metrics={**before.metrics, **case.metrics},
            facts={**before.facts, **case.facts},
            gates=_worse(before.gates, case.gates),
            evidence=_united(before.evidence, case.evidence),
        )
    return tuple(together.values())


def _united(before: Evidence | None, after: Evidence | None) -> Evidence | None:
    """Merge the measurements; the thresholds are those of the test that comes first."""
    if before is None or after is None:
        return before or after
    measurements = {**before.measurements, **after.measurements}
    missing = {**before.missing, **after.missing}
    missing = {name: reason for name, reason in missing.items() if name not in measurements}
    return replace(before, measurements=measurements, missing=missing)


def _worse(before: tuple[GateResult, ...], after: tuple[GateResult, ...]) -> tuple[GateResult, ...]:
    gates = {gate.name: gate for gate in before}
    for gate in after:
        known = gates.get(gate.name)
        if known is None or SEVERITY.index(gate.verdict) < SEVERITY.index(known.verdict):
            gates[gate.name] = gate
    return tuple(gates.values())


def report_of(
    cases: Iterable[CaseResult],
    machine: Mapping[str, object],
    settings: Mapping[str, object],
    notes: Iterable[str] = (),
) -> Report:
    """Build the report of the session, like that of ``ptqbench run``."""
    merged = merge(cases)
    remarks = _untested_gates(merged) if merged else [NOTHING]
    return Report(machine, merged, settings, notes=(*remarks, *notes))


NOTHING = "Nothing was judged: no test of a gate came to a verdict."


def _untested_gates(cases: Iterable[CaseResult]) -> list[str]:
    """Name the gates without a test: a case that passes all others has not passed them."""
    missing: dict[tuple[str, ...], list[str]] = {}
    for case in cases:
        tested = {gate.name for gate in case.gates}
        left = tuple(gate.name for gate in gates_in_order() if gate.name not in tested)
        if left:
            missing.setdefault(left, []).append(f"{case.model} on {case.backend}")
    return [f"Not tested: {', '.join(left)} of {'; '.join(of)}." for left, of in missing.items()]


def sentence(case: CaseResult, gate: GateResult, origin: str = "") -> str:
    """Describe a verdict in a line: case, observation, requirement and its origin, reason."""
    text = f"{gate.name} of {case.model} on {case.backend}: {gate.verdict.value}."
    if gate.observed is not None:
        text += f" Observed {gate_number(gate.quantity, gate.observed)}"
        if (interval := pair(gate.interval)) is not None:
            text += f" (95 % interval {gate_interval(gate.quantity, interval)})"
        if gate.threshold is not None:
            text += f", {gate_needs(gate.quantity, gate.threshold)}"
            text += f" ({origin})" if origin else ""
        text += "."
    return f"{text} {gate.detail}"


def summary(cases: Iterable[CaseResult], profile: str) -> list[str]:
    """Return lines for the end of a session: counts of verdicts, then all that did not pass."""
    merged = merge(cases)
    if not merged:
        return [NOTHING]
    gates = [(case, gate) for case in merged for gate in case.gates]
    verdicts = [gate.verdict for _, gate in gates]
    counts = ", ".join(
        f"{verdicts.count(verdict)} {verdict.value}" for verdict in SEVERITY if verdict in verdicts
    )
    undecided = Verdict.INCONCLUSIVE in verdicts or Verdict.UNVERIFIED in verdicts
    meaning = "they fail" if profile == "ci" else "they are skipped, not passed"
    lines = [f"{count(len(gates), 'verdict')} on {count(len(merged), 'case')}: {counts}."]
    if undecided:
        lines.append(f"Inconclusive and unverified under the profile {profile}: {meaning}.")
    gates.sort(key=lambda pair: SEVERITY.index(pair[1].verdict))
    lines += [sentence(*pair) for pair in gates if pair[1].verdict is not Verdict.PASS]
    return lines
