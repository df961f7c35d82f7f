"""The generated block of docs/peers.md, from the record; and the same of one network alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from statistics import mean
from typing import Any

from benchmarks.blocks import table
from benchmarks.peer_runtimes.peer_record import Entry
from ptqbench.reporting.format import MISSING, percent

TORCH = "torch float32"
PTQBENCH = "ptqbench"
EXACT = "ONNX Runtime 8-bit exact"
FLOATS = {TORCH: "torch", "ONNX Runtime float32": "ORT", "OpenVINO float32": "OpenVINO"}
INT8 = {
    PTQBENCH: "ptqbench",
    "ONNX Runtime 7-bit weights": "ORT 7-bit",
    "ONNX Runtime 8-bit weights": "ORT 8-bit",
    EXACT: "ORT exact",
    "NNCF default": "NNCF default",
    "NNCF mixed": "NNCF mixed",
    "NNCF histogram": "NNCF histogram",
}
"""Candidates by name, and what columns call them."""
REFUSED = "refused"
Row = dict[str, Any]
Number = Callable[[Entry, str], float | None]
"""A candidate's number in an entry; None if there is none."""


def summary(entry: Entry) -> str:
    """Return a table of one network: a line for each candidate."""
    lines = []
    for name, row in entry["rows"].items():
        seconds = entry["seconds"].get(row["file"])
        lines.append(
            (
                name,
                row["error"] if "error" in row else percent(_top1(entry, name)),
                percent(_agreement(entry, name)),
                _digits(_sqnr(entry, name), 1),
                _digits(_ms(entry, name), 2),
                _digits(seconds, 0),
            )
        )
    heading = ("", "Top-1 %", "Agreement %", "SQNR dB", "ms", "Built in s")
    return f"{entry['model']}\n\n{table(heading, lines, right=range(1, 6))}\n"


def body(entries: Sequence[Entry]) -> str:
    """Return the generated block.

    Args:
        entries: The record, networks of one machine next to each other.
    """
    parts: list[str] = []
    for title, members in groupby(entries, key=_machine):
        group = list(members)
        parts += [f"### {title}", _lead(group)]
        parts += ["SQNR of the logits in dB:", _table(group, INT8, _sqnr, 1, bold=True)]
        parts += ["Agreement with float32 in %:", _table(group, INT8, _agreement, 2, scale=100)]
        parts += [
            "Top-1 in %:",
            _table(group, {TORCH: "float32"} | INT8, _top1, 2, scale=100),
            f"Latency of a call in ms, batch 1, {_distinct(group, _threads)}; the first three "
            "are float32:",
            _table(group, FLOATS | INT8, _ms, 2),
        ]
        parts += [f"{_distinct(group, _packages)}. Made by:", _commands(group)]
    return "\n\n".join(parts)


def _machine(entry: Entry) -> str:
    machine = entry["identity"]["machine"]
    cores = machine["physical_cores"]
    return f"{machine['cpu']}, {machine['instruction_set']}, {cores} cores"


def _lead(entries: Sequence[Entry]) -> str:
    """Say by how much ptqbench's SQNR exceeds the best peer's."""
    every = [name for name in INT8 if name != PTQBENCH]
    leads = _leads(entries, every)
    if not leads:
        return "ptqbench has not been measured here."
    fast = _leads(entries, [name for name in every if name != EXACT])
    return (
        f"Against the best of the other columns, whichever that is for a network, ptqbench has "
        f"{_spread(leads)}; without {INT8[EXACT]}, {_spread(fast)}."
    )


def _leads(entries: Sequence[Entry], peers: Sequence[str]) -> dict[str, float]:
    leads = {}
    for entry in entries:
        ours = _sqnr(entry, PTQBENCH)
        others = [value for name in peers if (value := _sqnr(entry, name)) is not None]
        if ours is not None and others:
            leads[_short(entry)] = ours - max(others)
    return leads


def _spread(leads: dict[str, float]) -> str:
    if not leads:
        return "nothing to be compared with"
    lowest, highest = min(leads, key=leads.__getitem__), max(leads, key=leads.__getitem__)
    return (
        f"{mean(leads.values()):+.1f} dB on average over {len(leads)} networks (from "
        f"{leads[lowest]:+.1f} for {lowest} to {leads[highest]:+.1f} for {highest})"
    )


def _table(
    entries: Sequence[Entry],
    columns: dict[str, str],
    number: Number,
    digits: int,
    *,
    scale: float = 1,
    bold: bool = False,
) -> str:
    lines = []
    for entry in entries:
        values = [number(entry, name) for name in columns]
        cells = [_digits(None if x is None else scale * x, digits) for x in values]
        highest = max((x for x in values if x is not None), default=None)
        for index, name in enumerate(columns):
            if "error" in (_row(entry, name) or {}):
                cells[index] = REFUSED
            elif bold and values[index] is not None and values[index] == highest:
                cells[index] = f"**{cells[index]}**"
        lines.append((_label(entry), *cells))
    return table(("Network", *columns.values()), lines, right=range(1, len(columns) + 1))


def _row(entry: Entry, name: str) -> Row | None:
    """Return a candidate's row; ptqbench's is the first of its backends'."""
    rows = entry["rows"]
    if name == PTQBENCH:
        return next((row for key, row in rows.items() if key.startswith(PTQBENCH)), None)
    row: Row | None = rows.get(name)
    return row


def _of_row(key: str) -> Number:
    def number(entry: Entry, name: str) -> float | None:
        value = (_row(entry, name) or {}).get(key)
        return value[0] if isinstance(value, list) else value

    return number


_sqnr, _agreement, _top1 = map(_of_row, ("sqnr_db", "agreement", "top1"))


def _ms(entry: Entry, name: str) -> float | None:
    times = entry["latency"].get("ms") or {}
    if name == PTQBENCH:
        name = next((key for key in times if key.startswith(PTQBENCH)), name)
    ms: float | None = times.get(name)
    return ms


def _digits(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _short(entry: Entry) -> str:
    """Return a network's name without the file that it comes from."""
    model: str = entry["model"]
    return model.rpartition(":")[2]


def _label(entry: Entry) -> str:
    backend = (_row(entry, PTQBENCH) or {}).get("backend")
    return f"{_short(entry)} ({backend})" if backend else _short(entry)


def _threads(entry: Entry) -> str:
    threads = entry["latency"].get("threads", 1)
    return "1 thread (CPU time)" if threads == 1 else f"{threads} threads"


def _packages(entry: Entry) -> str:
    versions = entry["identity"]["packages"]
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _distinct(entries: Sequence[Entry], text: Callable[[Entry], str]) -> str:
    return "; ".join(dict.fromkeys(map(text, entries)))


def _commands(entries: Sequence[Entry]) -> str:
    return "\n".join(dict.fromkeys(_command_lines(entries)))


def _command_lines(entries: Sequence[Entry]) -> Iterator[str]:
    for entry in entries:
        identity = entry["identity"]
        shape = "×".join(map(str, identity["image"]))
        yield (
            f"- `{entry['command']}`: {identity['evaluation_images']} evaluation images of "
            f"{shape}, {identity['calibration_images']} to calibrate with"
        )
