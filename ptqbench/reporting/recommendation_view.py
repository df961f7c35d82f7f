"""What to ship: the table of candidates, and the answer in a sentence."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.evaluation.recommendation import INT8, Candidate, Recommendation
from ptqbench.reporting.format import arrow, decibel, number, percent, significant, times

_COLUMNS = ("", "Candidate", "ms", "× float32", "Size MB", "Top-1 %", "Agreement", "SQNR", "Gates")
_MEGABYTE = 1e6


def recommendation_view(recommendation: Recommendation) -> RenderableType:
    """Show all candidates, the fastest first, and which of them to ship.

    Args:
        recommendation: Of one model.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for i, name in enumerate(_COLUMNS):
        table.add_column(name, justify="right" if 2 <= i <= 7 else "left", overflow="fold")
    for candidate in recommendation.candidates:
        chosen = candidate is recommendation.choice
        style = "bold" if chosen else "dim" if candidate.failures else ""
        cells = _cells(candidate, recommendation)
        table.add_row("→" if chosen else "", *map(Text, cells), style=style)
    shape = "×".join(map(str, recommendation.input_shape))
    threads = "1 thread" if recommendation.threads == 1 else f"{recommendation.threads} threads"
    conditions = Text(f"ms of a call at {shape} on {threads}, all in turn", style="dim")
    missing = [
        Text(f"Not tried: {name}: {reason}.", style="dim")
        for name, reason in recommendation.missing.items()
    ]
    answer = Text(sentence(recommendation), style="bold")
    title = Text(recommendation.model, style="bold")
    return Group(title, table, conditions, Text(), answer, *missing)


def _cells(candidate: Candidate, recommendation: Recommendation) -> list[str]:
    fastest = recommendation.fastest_float32.ms
    ratio = None if candidate.ms is None or fastest is None else fastest / candidate.ms
    metrics = {} if candidate.case is None else candidate.case.metrics
    return [
        candidate.label,
        significant(candidate.ms),
        times(ratio),
        f"{candidate.size_bytes / _MEGABYTE:.1f}",
        percent(number(metrics.get("int8_top1"))) if candidate.precision == INT8 else "",
        percent(number(metrics.get("agreement"))) if candidate.precision == INT8 else "",
        decibel(number(metrics.get("sqnr_db"))) if candidate.precision == INT8 else "",
        gates_of(candidate),
    ]


def gates_of(candidate: Candidate) -> str:
    """What the gates say of a candidate, in a few words."""
    if candidate.precision != INT8:
        return ""
    if candidate.failures:
        return f"fails {', '.join(candidate.failures)}"
    return ", ".join(candidate.doubts) or "pass"


def sentence(recommendation: Recommendation) -> str:
    """Return the answer: what to ship, why, and what it costs."""
    choice, rival = recommendation.choice, recommendation.fastest_float32
    if choice.precision != INT8:
        best = next((c for c in recommendation.candidates if _is_sound(c)), None)
        if best is None or best.ms is None or choice.ms is None:
            reason = "no int8 file passes the gates"
        else:
            reason = f"{best.label} takes {significant(best.ms)} ms, so int8 gains no time here"
        return f"Keep {choice.label} ({significant(choice.ms)} ms): {reason}."
    parts = [f"Ship {choice.label}: {significant(choice.ms)} ms"]
    if choice.ms is not None and rival.ms is not None:
        parts.append(
            f"{times(rival.ms / choice.ms)} as fast as {rival.label} ({significant(rival.ms)} ms)"
        )
    parts.append(f"{times(rival.size_bytes / choice.size_bytes)} smaller")
    metrics = {} if choice.case is None else choice.case.metrics
    top1 = [percent(number(metrics.get(name))) for name in ("float32_top1", "int8_top1")]
    if metrics.get("int8_top1") is not None:
        parts.append(f"top-1 {arrow(*top1)} %")
    doubts = f" Not yet shown: {', '.join(choice.doubts)}." if choice.doubts else ""
    return f"{', '.join(parts)}.{doubts}"


def _is_sound(candidate: Candidate) -> bool:
    return candidate.precision == INT8 and not candidate.failures and candidate.ms is not None
