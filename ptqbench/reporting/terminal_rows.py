"""The lines of a case: measurements and gates."""

from __future__ import annotations

from rich.text import Text

from ptqbench.evaluation.result import CaseResult
from ptqbench.gates.verdict import SEVERITY, Verdict
from ptqbench.reporting.format import (
    MISSING,
    arrow,
    count,
    decibel,
    number,
    pair,
    percent,
    significant,
    span,
    times,
)

SYMBOLS = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.UNVERIFIED: "○",
}
STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.UNVERIFIED: "magenta",
}
"""Only a pass is green."""

Lines = tuple[Text, Text]
"""Upper and lower line of a column for one case."""

HEADINGS: tuple[Lines, ...] = (
    (Text("Model"), Text("backend · threads")),
    (Text("Top-1 %"), Text("kept")),
    (Text("Agreement"), Text("SQNR")),
    (Text("Size MB"), Text("ratio")),
    (Text("Latency ms"), Text("speedup (95 %)")),
)


def case_lines(case: CaseResult) -> tuple[Lines, ...]:
    """Return the two lines of a case, by the columns of `HEADINGS`."""
    metrics = {name: number(value) for name, value in case.metrics.items()}
    styles = {
        gate.name: STYLES[gate.verdict] for gate in case.gates if gate.verdict is not Verdict.PASS
    }
    before, after = metrics.get("float32_top1"), metrics.get("int8_top1")
    retained = None if before is None or after is None or before <= 0 else after / before
    ratio = times(metrics.get("speedup"))
    interval = span(speedup_interval(case)) if ratio != MISSING else ""
    return (
        (Text(case.model, style="bold"), Text(_engine(case), style="dim")),
        (
            _arrow(percent(before), percent(after)),
            Text(percent(retained, 1, " %"), style=styles.get("accuracy", "")),
        ),
        (
            Text(percent(metrics.get("agreement"), unit=" %"), style=styles.get("agreement", "")),
            Text(decibel(metrics.get("sqnr_db"))),
        ),
        (
            _arrow(*(_megabytes(metrics.get(f"{side}_bytes")) for side in ("float32", "int8"))),
            Text(times(metrics.get("size_ratio")), style=styles.get("size", "")),
        ),
        (
            _arrow(
                *(significant(metrics.get(f"{side}_latency_ms")) for side in ("float32", "int8"))
            ),
            Text(ratio, style=styles.get("speedup", "")).append(
                f" {interval}" if interval else "", style="default"
            ),
        ),
    )


def speedup_interval(case: CaseResult) -> tuple[float, float] | None:
    """Return the interval of the speedup, even if no gate judged it."""
    stated = pair(case.facts.get("speedup_interval"))
    judged = (pair(gate.interval) for gate in case.gates if gate.name == "speedup")
    return stated or next(judged, None)


def gate_lines(case: CaseResult, width: int) -> list[Text]:
    """List the gates by verdict, failures first, in lines of at most ``width`` columns."""
    if not case.gates:
        return [Text(f"{SYMBOLS[Verdict.UNVERIFIED]} no gates", STYLES[Verdict.UNVERIFIED])]
    lines: list[Text] = []
    for verdict in SEVERITY:
        names = [gate.name for gate in case.gates if gate.verdict is verdict]
        start = f"{SYMBOLS[verdict]} "
        for index, name in enumerate(names):
            word = name + ("," if index < len(names) - 1 else "")
            if index and len(lines[-1]) + 1 + len(word) <= width:
                lines[-1].append(f" {word}")
            else:
                lines.append(Text(("  " if index else start) + word, style=STYLES[verdict]))
    return lines


def _engine(case: CaseResult) -> str:
    engine = str(case.facts.get("engine") or case.backend)
    name = case.backend if engine == case.backend else f"{case.backend} ({engine})"
    threads = number(case.facts.get("threads"))
    return name if threads is None else f"{name} · {count(int(threads), 'thread')}"


def _megabytes(size: float | None) -> str:
    return significant(None if size is None else size / 1e6)


def _arrow(before: str, after: str) -> Text:
    return Text(arrow(before, after))
