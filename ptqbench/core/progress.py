"""Progress callbacks, independent of how they are displayed."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a description, the number of finished steps and the number of all steps."""


def prefixed(progress: Progress, prefix: str) -> Progress:
    """Return a callback that puts a prefix before every description.

    Args:
        progress: The callback that is called with the longer description.
        prefix: The subject of the work, such as ``resnet18 on x86``.
    """

    def report(description: str, done: int, total: int) -> None:
        progress(f"{prefix}: {description}", done, total)

    return report


def silent(description: str, done: int, total: int) -> None:
    """Ignore progress."""
