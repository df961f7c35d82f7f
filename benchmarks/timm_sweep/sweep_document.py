"""The generated block of docs/timm.md, from the committed record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.blocks import table
from benchmarks.timm_sweep.architectures import in_turn
from benchmarks.timm_sweep.sweep_record import CONVOLUTIONAL_KIND, OTHER_KIND

HEADING = ("Networks", "Architectures", "Families", "right", "wrong", "refused", "did not finish")
_STATUSES = ("right", "wrong", "refused", "died")
_KINDS = {CONVOLUTIONAL_KIND: "convolutional", OTHER_KIND: "with attention or mixing of tokens"}
_CAUSES = ("Cause", "Architectures", "Such as")
_SHOWN = 8
_PLACE = re.compile(r" at \S+, line \d+.*")
"""Where in a model's code, with the line and what follows it."""
_NAMES = re.compile(r"'[^']*'|\([^()]*\)| \d[\d.,e-]*%?")
"""What else a sentence says about one model only: names and numbers."""

Json = Mapping[str, Any]


def body(content: Json) -> str:
    """Return the generated block.

    Args:
        content: The record.
    """
    entries: Mapping[str, Json] = content["architectures"]
    right = [entry for entry in entries.values() if entry["status"] == "right"]
    seconds = [entry["seconds"] for entry in entries.values() if "seconds" in entry]
    families = len({entry["family"] for entry in entries.values()})
    parts = [
        f"**{len(right)} of {len(entries)} architectures, of {families} families, are quantized "
        "and right by the four gates that look inside the file.**",
        _summary(entries),
        f"{'; '.join(map(_machine, content['machines']))}. Median time of an architecture: "
        f"{median(seconds):.0f} s, beside other work.",
    ]
    if missing := len(in_turn()) - len(entries):
        parts.append(f"{missing} of {len(in_turn())} planned architectures are not measured yet.")
    if causes := _causes(entries):
        parts += ["What is not right, by cause:", table(_CAUSES, causes, right=[1])]
    return "\n\n".join(parts)


def _machine(machine: Json) -> str:
    return (
        f"{machine['cpu']}, {machine['instruction_set']}, {machine['system']}, Python "
        f"{machine['python']}, torch {machine['torch']}, timm {machine['timm']}"
    )


def _summary(entries: Mapping[str, Json]) -> str:
    groups = {
        title: [entry for entry in entries.values() if entry["kind"] == kind]
        for kind, title in _KINDS.items()
    }
    groups["**all**"] = list(entries.values())
    return table(HEADING, (_row(title, group) for title, group in groups.items()), range(1, 7))


def _row(title: str, group: Sequence[Json]) -> tuple[str, ...]:
    counts = [sum(entry["status"] == status for entry in group) for status in _STATUSES]
    share = f" ({counts[0] / len(group):.0%})" if group else ""
    families = len({entry["family"] for entry in group})
    return (title, str(len(group)), str(families), f"{counts[0]}{share}", *map(str, counts[1:]))


def _causes(entries: Mapping[str, Json]) -> list[tuple[str, ...]]:
    """Rows of causes, the most frequent first."""
    groups: dict[str, list[str]] = {}
    for name, entry in entries.items():
        if entry["status"] != "right":
            groups.setdefault(cause(entry), []).append(name)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(text, str(len(names)), _few(names)) for text, names in ordered]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, …"


def cause(entry: Json) -> str:
    """Return why an architecture is not right, without what is true of it alone."""
    if entry["status"] == "wrong":
        return f"fail: {', '.join(_failing(entry))}"
    sentence = re.split(r"(?<=[a-z)'])\. ", str(entry["reason"]))[0]
    text = " ".join(_NAMES.sub(" …", _PLACE.sub(" …", sentence)).split()).rstrip(". ")
    return {"refused": "refused: ", "died": "did not finish: "}[entry["status"]] + text


def _failing(entry: Json) -> Iterator[str]:
    return (name for name, verdict in entry["gates"].items() if verdict != "pass")
