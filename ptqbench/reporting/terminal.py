"""The report on one screen: failures first, then the measurements behind each verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import SEVERITY, Verdict
from ptqbench.reporting.case_notes import case_notes
from ptqbench.reporting.console import PIPE_WIDTH
from ptqbench.reporting.format import (
    arrow,
    count,
    gate_numbers,
    machine_facts,
    number,
    pair,
    percent,
    published_top1,
    source_name,
    span,
)
from ptqbench.reporting.terminal_rows import (
    HEADINGS,
    STYLES,
    SYMBOLS,
    Lines,
    case_lines,
    gate_lines,
)

_GAP = 2
_GATES_WIDTH = 21
"""Columns that the gates need next to the numbers; with fewer they go below them."""


def report_view(report: Report, width: int = PIPE_WIDTH) -> RenderableType:
    """Lay out the whole report.

    Args:
        report: The measurements and verdicts of a run.
        width: Available columns.
    """
    cases = sorted(report.cases, key=lambda case: SEVERITY.index(case.verdict))
    if not cases:
        return Text("Nothing was measured: there is no case.", style="yellow")
    parts: list[RenderableType] = [_title(report), Text(), *_table(cases, width)]
    details = _details(cases)
    if details.row_count:
        parts += [Text(), details]
    notes = [Text(note) for note in (*case_notes(cases), *_published(cases), *report.notes)]
    if notes:
        parts += [Text(), *notes]
    return Group(*parts, Text(), _conditions(report), _summary(cases))


def _title(report: Report) -> Text:
    weights = _several(source_name(case.weights) for case in report.cases)
    data = _several(source_name(case.data) for case in report.cases)
    images = [number(case.facts.get("evaluation_images")) for case in report.cases]
    known = sorted({int(n) for n in images if n is not None})
    shown = "" if not known else f", {known[0]:,}"
    if len(known) > 1:
        shown += f"–{known[-1]:,}"
    if known:
        shown += " images"
    line = Text()
    line.append(f"ptqbench {report.ptqbench_version}", style="bold")
    return line.append(f" · float32 → int8 · weights {weights} · data {data}{shown}")


def _several(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique) if len(unique) <= 3 else f"{unique[0]} and {len(unique) - 1} others"


def _table(cases: Sequence[CaseResult], width: int) -> list[Text]:
    rows = [case_lines(case) for case in cases]
    columns = [
        max(line.cell_len for row in (HEADINGS, *rows) for line in row[index])
        for index in range(len(HEADINGS))
    ]
    used = 2 + sum(columns) + _GAP * len(columns)
    beside = width - used >= _GATES_WIDTH
    room = min(width - used, 60) if beside else width - 4
    lines = [Text("  ") + line for line in _lay(HEADINGS, columns)]
    for line in lines:
        line.stylize("dim")
    if beside:
        lines[0].append("Gates", style="dim")
    lines.append(Text("─" * min(width, used + (room if beside else 0)), style="dim"))
    for case, row in zip(cases, rows, strict=True):
        gates = gate_lines(case, max(room, _GATES_WIDTH))
        numbers = _lay(row, columns)
        mark = Text(f"{SYMBOLS[case.verdict]} ", style=STYLES[case.verdict])
        if beside:
            lines += _beside(mark, numbers, gates, used)
        else:
            lines += [mark + numbers[0], Text("  ") + numbers[1], *_below(gates, room)]
    for line in lines:
        line.rstrip()
    return lines


def _beside(mark: Text, numbers: list[Text], gates: list[Text], used: int) -> list[Text]:
    blank = Text(" " * (used - 2))
    left = numbers + [blank] * (len(gates) - len(numbers))
    right = gates + [Text()] * (len(numbers) - len(gates))
    marks = [mark] + [Text("  ")] * (len(left) - 1)
    return [m + n + g for m, n, g in zip(marks, left, right, strict=True)]


def _below(gates: list[Text], room: int) -> list[Text]:
    joined = Text("  ").join(gates)
    lines = [joined] if joined.cell_len <= room else gates
    return [Text("  ") + line for line in lines]


def _lay(row: Sequence[Lines], columns: Sequence[int]) -> list[Text]:
    lines = []
    for which in (0, 1):
        line = Text()
        for index, (cell, width) in enumerate(zip(row, columns, strict=True)):
            text = cell[which].copy()
            text.align("left" if index in (0, len(columns) - 1) else "right", width)
            line.append_text(text).append(" " * _GAP)
        lines.append(line)
    return lines


def _details(cases: Sequence[CaseResult]) -> Table:
    """Make a line for each gate that did not pass; identical details share one."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    together: dict[tuple[Verdict, str], list[tuple[CaseResult, GateResult]]] = {}
    for case in cases:
        for gate in case.gates:
            if gate.verdict is not Verdict.PASS:
                together.setdefault((gate.verdict, gate.detail), []).append((case, gate))
    for verdict, detail in sorted(together, key=lambda key: SEVERITY.index(key[0])):
        group = together[verdict, detail]
        # A shared detail has no numbers of its gates.
        numbers = gate_numbers(group[0][1]) if len(group) == 1 else ""
        line = Text()
        line.append(f"{verdict.value} ", style=STYLES[verdict])
        line.append(_where(group), style="bold")
        line.append(f": {numbers}{detail}")
        grid.add_row(Text(SYMBOLS[verdict], style=STYLES[verdict]), line)
    return grid


def _published(cases: Sequence[CaseResult]) -> list[str]:
    """Compare measured with published accuracy."""
    lines = []
    for case in cases:
        if stated := published_top1(case):
            before, after = (number(case.metrics.get(f"{s}_top1")) for s in ("float32", "int8"))
            measured = arrow(percent(before), percent(after))
            lines.append(f"{case.model} on {case.backend}: top-1 {measured}, {stated}")
    return lines


def _where(group: Sequence[tuple[CaseResult, GateResult]]) -> str:
    gates = ", ".join(dict.fromkeys(gate.name for _, gate in group))
    backends: dict[str, list[str]] = {}
    for case, _ in group:
        models = backends.setdefault(case.backend, [])
        if case.model not in models:
            models.append(case.model)
    return f"{gates} of " + "; ".join(
        f"{', '.join(models)} on {backend}" for backend, models in backends.items()
    )


def _conditions(report: Report) -> Text:
    """Name the machine, the input shapes and the noise floor of the latency."""
    facts = machine_facts(report.machine)
    shapes = dict.fromkeys(
        "×".join(map(str, shape))
        for case in report.cases
        if isinstance(shape := case.facts.get("input_shape"), (list, tuple))
    )
    if shapes:
        facts.append(f"latency at {', '.join(shapes)}")
    noise = [limits for c in report.cases if (limits := pair(c.facts.get("noise_interval")))]
    if noise:
        widest = (min(low for low, _ in noise), max(high for _, high in noise))
        facts.append(f"noise floor {span(widest, 3)}")
    return Text(" · ".join(facts), style="dim")


def _summary(cases: Sequence[CaseResult]) -> Text:
    line = Text(f"{count(len(cases), 'case')}: ", style="bold")
    verdicts = [case.verdict for case in cases]
    parts = [
        Text(f"{SYMBOLS[verdict]} {verdicts.count(verdict)} {verdict.value}", style=STYLES[verdict])
        for verdict in SEVERITY
        if verdict in verdicts
    ]
    return line.append_text(Text("   ").join(parts))
