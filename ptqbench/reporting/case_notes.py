"""Notes on cases that a reader needs besides the numbers, each one once."""

from __future__ import annotations

from collections.abc import Iterable

from ptqbench.core.names import first_few
from ptqbench.evaluation.result import CaseResult
from ptqbench.reporting.format import count, number

_NAMED = 3


def case_notes(cases: Iterable[CaseResult]) -> list[str]:
    """Collect the notes of cases, and what became of images that show or tell nothing."""
    lines: dict[str, None] = {}
    for case in cases:
        notes = case.facts.get("notes")
        if isinstance(notes, tuple | list):
            lines |= dict.fromkeys(map(str, notes))
        for kind in ("evaluation", "calibration"):
            lines |= dict.fromkeys((*_broken(case, kind), *_alike(case, kind)))
    return list(lines)


def _broken(case: CaseResult, kind: str) -> list[str]:
    broken = number(case.facts.get(f"broken_{kind}_images"))
    names = case.facts.get(f"broken_{kind}_files")
    if not broken or not isinstance(names, tuple | list):
        return []
    shown = first_few([*map(str, names)], _NAMED, total=int(broken))
    pictures = count(int(broken), f"{kind} picture")
    return [f"{pictures} could not be decoded and took no part: {shown}."]


def _alike(case: CaseResult, kind: str) -> list[str]:
    alike = number(case.facts.get(f"alike_{kind}_images"))
    if not alike:
        return []
    pictures = count(int(alike), f"{kind} picture")
    of_its_own = "nothing of its own: it is" if alike == 1 else "nothing of their own: they are"
    verb = "shows" if alike == 1 else "show"
    return [f"{pictures} {verb} {of_its_own} of one colour, or like the one before."]
