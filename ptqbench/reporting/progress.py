"""How far a run is, on standard error, for as long as somebody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ptqbench.progress import Progress, silent

_INTERVAL = 0.1
"""Seconds between two redraws."""


@contextmanager
def progress_display() -> Iterator[Progress]:
    """Show progress while the body of the ``with`` statement runs, then wipe it away.

    Nothing is shown where standard error is not a terminal.

    Yields:
        What to call with a description, the steps done and how many there are.
    """
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn
    from rich.progress import Progress as Bars

    # rich redraws from a thread of its own by default. It would wake up in the middle of
    # what is being timed, so bars are redrawn between two steps only.
    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
    )
    current: TaskID | None = None
    name = ""
    drawn = 0.0

    def update(description: str, done: int, total: int) -> None:
        nonlocal current, name, drawn
        fresh = current is None or description != name
        if fresh:
            if current is not None:
                bars.remove_task(current)
            current, name = bars.add_task(description, total=total or None), description
        assert current is not None
        bars.update(current, completed=done, total=total or None)
        now = time.monotonic()
        if fresh or done >= total or now - drawn >= _INTERVAL:
            bars.refresh()
            drawn = now

    with bars:
        yield update
