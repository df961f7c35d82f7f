"""The report as Markdown, for pull requests and job summaries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ptqbench.core.names import printable
from ptqbench.evaluation.result import CaseResult
from ptqbench.gates.verdict import SEVERITY, Verdict
from ptqbench.reporting.case_notes import case_notes
from ptqbench.reporting.format import (
    arrow,
    decibel,
    gate_numbers,
    machine_facts,
    number,
    percent,
    published_top1,
    significant,
    times,
)

if TYPE_CHECKING:
    from ptqbench.evaluation.result import Report

SIGNS = {
    Verdict.PASS: "✅ pass",
    Verdict.FAIL: "❌ fail",
    Verdict.INCONCLUSIVE: "❓ inconclusive",
    Verdict.UNVERIFIED: "⚪ unverified",
}
"""Only a pass is green."""

_COLUMNS = ("Model", "Backend", "Verdict", "Top-1", "Agreement", "SQNR", "Size", "Speedup")


def to_markdown(report: Report) -> str:
    """Return the report as Markdown (GitHub's dialect), failures first."""
    cases = sorted(report.cases, key=lambda case: SEVERITY.index(case.verdict))
    lines = [f"## ptqbench: {SIGNS[report.verdict]}", ""]
    if not cases:
        return "\n".join([*lines, "Nothing was measured.", *_notes(report), "", ""])
    lines += [_row(_COLUMNS), _row("---" for _ in _COLUMNS)]
    lines += [_row(_cells(case)) for case in cases]
    lines += ["", *_details(cases), *_notes(report), _conditions(report), ""]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def escaped(text: str) -> str:
    """Escape characters that would end a cell or be taken for markup."""
    text = printable(text)
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _cells(case: CaseResult) -> list[str]:
    metrics = {name: number(value) for name, value in case.metrics.items()}
    return [
        case.model,
        case.backend,
        SIGNS[case.verdict],
        _top1(case, metrics),
        percent(metrics.get("agreement")),
        decibel(metrics.get("sqnr_db")),
        times(metrics.get("size_ratio")),
        _speed(metrics),
    ]


def _top1(case: CaseResult, metrics: dict[str, float | None]) -> str:
    measured = arrow(percent(metrics.get("float32_top1")), percent(metrics.get("int8_top1")))
    stated = published_top1(case)
    return f"{measured}; {stated}" if stated else measured


def _speed(metrics: dict[str, float | None]) -> str:
    before, after = (metrics.get(f"{side}_latency_ms") for side in ("float32", "int8"))
    if before is None or after is None:
        return times(metrics.get("speedup"))
    ratio = times(metrics.get("speedup"))
    return f"{ratio} ({significant(before)} → {significant(after)} ms)"


def _details(cases: list[CaseResult]) -> list[str]:
    gates = [(case, gate) for case in cases for gate in case.gates]
    gates = [pair for pair in gates if pair[1].verdict is not Verdict.PASS]
    gates.sort(key=lambda pair: SEVERITY.index(pair[1].verdict))
    lines = [
        f"- {SIGNS[gate.verdict]}: **{escaped(gate.name)}** of {escaped(case.model)} on "
        f"{escaped(case.backend)}. {gate_numbers(gate)}{escaped(gate.detail)}"
        for case, gate in gates
    ]
    return [*lines, ""] if lines else []


def _notes(report: Report) -> list[str]:
    notes = (*case_notes(report.cases), *report.notes)
    return [line for note in notes for line in (escaped(note), "")]


def _conditions(report: Report) -> str:
    facts = escaped(" · ".join(machine_facts(report.machine)))
    return f"<sub>ptqbench {report.ptqbench_version} · {facts}</sub>"
