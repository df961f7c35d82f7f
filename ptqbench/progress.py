"""How long work says how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done and how many there are."""


def silent(description: str, done: int, total: int) -> None:
    """Show nothing."""
