"""What a reader must know beside the numbers of cases, each thing once."""

from __future__ import annotations

from collections.abc import Iterable

from ptqbench.evaluation.result import CaseResult
from ptqbench.reporting.format import count, number

_NAMED = 3


def case_notes(cases: Iterable[CaseResult]) -> list[str]:
    """The notes of cases, and which of their images could not be read."""
    found: dict[str, None] = {}
    for case in cases:
        notes = case.facts.get("notes")
        if isinstance(notes, tuple | list):
            found |= dict.fromkeys(map(str, notes))
        for kind in ("evaluation", "calibration"):
            found |= dict.fromkeys(_broken(case, kind))
    return list(found)


def _broken(case: CaseResult, kind: str) -> list[str]:
    broken = number(case.facts.get(f"broken_{kind}_images"))
    names = case.facts.get(f"broken_{kind}_files")
    if not broken or not isinstance(names, tuple | list):
        return []
    named = ", ".join(map(str, names[:_NAMED]))
    more = int(broken) - len(names[:_NAMED])
    also = f" and {more} more" if more > 0 else ""
    pictures = count(int(broken), f"{kind} picture")
    return [f"{pictures} could not be decoded and took no part: {named}{also}."]
