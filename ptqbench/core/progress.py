"""How long work says how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done and how many there are."""


def named(progress: Progress, whose: str) -> Progress:
    """The same, told whose work it is.

    Args:
        progress: Who is told.
        whose: What is worked on, such as ``resnet18 on x86``.
    """

    def told(description: str, done: int, total: int) -> None:
        progress(f"{whose}: {description}", done, total)

    return told


def silent(description: str, done: int, total: int) -> None:
    """Show nothing."""
