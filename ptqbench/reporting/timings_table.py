"""A table of the phases of a run and the share of forward passes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.core.phases import Phase
from ptqbench.reporting.format import percent


def overhead(phases: Sequence[Phase], wall_seconds: float) -> float | None:
    """Return the time of the whole process over that of its forward passes, None without any."""
    forward = sum(phase.seconds for phase in phases if phase.forward)
    return wall_seconds / forward if forward > 0 else None


def timings_view(phases: Sequence[Phase], wall_seconds: float) -> RenderableType:
    """Lay out a table of the phases, forward passes first.

    Args:
        phases: They do not overlap.
        wall_seconds: Time of the whole process in s.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("Where the time went")
    table.add_column("s", justify="right")
    table.add_column("share", justify="right")

    def add(name: str, seconds: float, style: str = "") -> None:
        share = percent(seconds / wall_seconds, 1, " %") if wall_seconds > 0 else ""
        table.add_row(Text(name), f"{seconds:.2f}", share, style=style)

    for title, forward in (("forward passes", True), ("other work", False)):
        chosen = [phase for phase in phases if phase.forward is forward]
        rest = 0.0 if forward else max(0.0, wall_seconds - sum(p.seconds for p in phases))
        add(title, sum(phase.seconds for phase in chosen) + rest, "bold")
        for phase in chosen:
            add(f"  {phase.name}", phase.seconds)
        if rest:
            add("  everything else", rest)
    add("whole process", wall_seconds, "bold")
    ratio = overhead(phases, wall_seconds)
    note = "" if ratio is None else f"The whole process took {ratio:.2f} × its forward passes."
    return Group(Text(), table, Text(note, style="dim"))
