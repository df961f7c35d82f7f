"""Display progress on standard error: a bar on a terminal, a few lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ptqbench.core.progress import Progress, silent

_INTERVAL = 0.1
"""Seconds between two redraws."""

_HEARTBEAT = 60.0
"""Seconds after which a step is mentioned again: CI ends jobs without output."""


@contextmanager
def progress_display(*, lines: bool = True) -> Iterator[Progress]:
    """Show progress while the body of the ``with`` statement runs.

    On a terminal it is a bar, which is removed at the end. Elsewhere, for example in the log of
    a CI job, there is a line when a step begins, and once a minute how far it is.

    Args:
        lines: Whether to write lines if standard error is not a terminal.

    Yields:
        The progress callback.
    """
    if not sys.stderr.isatty():
        yield _lines() if lines else silent
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


def _lines() -> Progress:
    """Make a callback that writes a line when a step begins, and now and then while it lasts."""
    begun: set[str] = set()
    last = time.monotonic()

    def update(description: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if description not in begun:
            begun.add(description)
            line = description
        elif now - last >= _HEARTBEAT:
            line = f"{description}, {done:,} of {total:,}"
        else:
            return
        last = now
        # A log that cannot be written to is no reason to lose the result.
        with contextlib.suppress(OSError, ValueError):
            print(f"ptqbench: {line}", file=sys.stderr, flush=True)

    return update
