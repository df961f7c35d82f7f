"""How gates name many things in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5


def some(names: Sequence[str], separator: str = ", ") -> str:
    """The first few names, and how many more there are."""
    shown = separator.join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
