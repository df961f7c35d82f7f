"""The inspection of a file for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.inspection.file_inspection import FileInspection
from ptqbench.inspection.findings import sentence

_MARKS = {
    "error": ("✗ error", "red"),
    "warning": ("! warning", "yellow"),
    "note": ("· note", "dim"),
}
_KINDS = 8
"""Kinds of operators that are named; the rest is counted."""


def inspection_view(inspection: FileInspection) -> RenderableType:
    """Show layers by precision, operators, and a sentence with a remedy for each finding."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("Layers", style="bold", no_wrap=True)
    table.add_column("number", justify="right")
    table.add_column("multiply-adds", justify="right")
    for precision, (count, share) in inspection.precisions.items():
        table.add_row(precision, f"{count:,}", _percent(share))
    wrote = f", written by {inspection.producer}" if inspection.producer else ""
    size = f"{inspection.size_bytes:,} bytes"
    heading = f"{inspection.path.name}: {size}, {_form(inspection)}{wrote}"
    parts: list[RenderableType] = [Text(heading, style="bold"), Text(), table, Text()]
    parts += [Text(f"Operators: {_operators(inspection)}.", style="dim"), Text()]
    for finding in inspection.findings:
        mark, style = _MARKS[finding.severity]
        part = f" They do {_percent(finding.share)} of the multiply-adds." if finding.share else ""
        parts.append(
            Text.assemble((mark, style), " ", f"{sentence(finding)}{part} {finding.remedy}")
        )
    if not inspection.findings:
        parts.append(Text("✓ nothing was found that is wrong or slow", style="green"))
    parts += [
        Text(),
        Text(
            "Nothing was executed: ptqbench gate judges what the runtime makes of the file.",
            style="dim",
        ),
    ]
    return Group(*parts)


def _form(inspection: FileInspection) -> str:
    names = {"onnx": "opset", "openvino": "IR version"}
    if inspection.version is None:
        return f"read by {inspection.format}"
    return f"{names[inspection.format]} {inspection.version}"


def _operators(inspection: FileInspection) -> str:
    counts = list(inspection.operators.items())
    text = ", ".join(f"{count} {kind}" for kind, count in counts[:_KINDS])
    rest = sum(count for _, count in counts[_KINDS:])
    return f"{text} and {rest} more" if rest else text


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
