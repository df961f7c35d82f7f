"""From torch.ao to other runtimes: the table of files, and which layers change their precision."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.core.names import first_few
from ptqbench.evaluation.migration import Destination, Migration, int8_layers
from ptqbench.evaluation.recommendation import Candidate
from ptqbench.evaluation.result import Report
from ptqbench.reporting.format import decibel, number, percent, significant
from ptqbench.reporting.recommendation_view import gates_of, sentence

_COLUMNS = ("int8 in", "Top-1 %", "Agreement", "SQNR", "As now", "ms", "MB", "Layers", "Gates")
_MEGABYTE = 1e6


def migration_view(migration: Migration, report: Report) -> RenderableType:
    """Show the files of all runtimes beside that of torch.ao.

    Args:
        migration: Of one model.
        report: The cases, those that could not run here among them.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for i, name in enumerate(_COLUMNS):
        table.add_column(name, justify="right" if 1 <= i <= 7 else "left", overflow="fold")
    origin = migration.origin
    table.add_row(*_cells(origin, ""), style="bold")
    for each in migration.destinations:
        style = "dim" if each.candidate.failures else ""
        table.add_row(*_cells(each.candidate, _same(each)), style=style)
    float32 = migration.recommendation.fastest_float32
    cells = (f"({float32.label})", *[""] * 4, significant(float32.ms), _size(float32), "", "")
    table.add_row(*map(Text, cells), style="dim")
    shape = "×".join(map(str, migration.recommendation.input_shape))
    notes = [
        "Agreement and SQNR are to float32; “As now” is the share of images with the same class as "
        f"in {origin.name}. ms of a call at {shape}, all in turn. Layers: those that are int8.",
        *(line for each in migration.destinations for line in _changes(each, origin)),
    ]
    missing = [
        f"Not compared: {case.backend}: {case.evidence.unavailable}"
        for case in report.cases
        if case.evidence is not None and case.evidence.unavailable is not None
    ]
    title = Text(f"{migration.recommendation.model}: from {origin.label}", style="bold")
    answer = Text(sentence(migration.recommendation), style="bold")
    lines = [Text(line, style="dim") for line in (*notes, *missing)]
    return Group(title, table, Text(), *lines, Text(), answer)


def _cells(candidate: Candidate, same: str) -> list[Text]:
    metrics = {} if candidate.case is None else candidate.case.metrics
    cells = (
        candidate.name,
        percent(number(metrics.get("int8_top1"))),
        percent(number(metrics.get("agreement"))),
        decibel(number(metrics.get("sqnr_db"))),
        same,
        significant(candidate.ms),
        _size(candidate),
        f"{len(int8_layers(candidate))}",
        gates_of(candidate),
    )
    return [Text(cell) for cell in cells]


def _same(destination: Destination) -> str:
    return "" if destination.pair is None else percent(destination.pair.agreement.value)


def _size(candidate: Candidate) -> str:
    return f"{candidate.size_bytes / _MEGABYTE:.1f}"


def _changes(destination: Destination, origin: Candidate) -> Iterator[str]:
    """Say which layers are int8 in only one of two files."""
    new, old = destination.candidate.name, origin.name
    if destination.gains:
        yield f"int8 only in {new}: {first_few(destination.gains)}."
    if destination.losses:
        yield f"int8 only in {old}: {first_few(destination.losses)} (float32 in {new})."
