"""Verdicts, and the worst of several."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of a gate.

    ``INCONCLUSIVE``: the interval contains the threshold after the bounded top-up.
    ``UNVERIFIED``: it could not be measured here. Neither is ever shown as green.
    """

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    UNVERIFIED = "unverified"


SEVERITY = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.UNVERIFIED, Verdict.PASS)
"""Verdicts from the one that matters most to the one that matters least."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on a whole: its worst part; of nothing, unverified, never a pass."""
    return min(verdicts, key=SEVERITY.index, default=Verdict.UNVERIFIED)
