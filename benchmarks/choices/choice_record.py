"""What was measured of each network, as JSON that a later run continues, and its table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.blocks import ROOT, table
from benchmarks.choices.choice_list import CHOICES, SHIPPED
from ptqbench.core.atomic import write_text

RECORD = ROOT / "fixtures" / "choices.json"
SCHEMA_VERSION = 1
Entry = dict[str, Any]
"""A network: its ``name``, the ``identity`` of what was measured, the ``command`` that does it,
and ``rows`` by name of the choice: SQNR in dB and agreement."""


def read_entry(path: Path, name: str, identity: Mapping[str, object], command: str) -> Entry:
    """Return what an earlier run measured under the same conditions, else an empty entry.

    Args:
        path: What it wrote; it need not exist.
        name: Of the network.
        identity: Whatever the numbers depend on, except the code: machine, weights, images.
        command: How the numbers are obtained.
    """
    same = json.loads(json.dumps(identity))
    if path.is_file():
        entry: Entry = json.loads(path.read_text("utf-8"))
        if entry["name"] == name and entry["identity"] == same:
            return entry | {"command": command}
    return {"name": name, "identity": same, "command": command, "rows": {}}


def read_record(path: Path) -> list[Entry]:
    """Return the networks of a record; none if there is no such file."""
    entries: list[Entry] = []
    if path.is_file():
        entries += json.loads(path.read_text("utf-8"))["networks"]
    return entries


def write_entry(path: Path, entry: Entry) -> None:
    """Write a network's numbers; an interrupted run goes on from there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(json.dumps(entry, indent=1, ensure_ascii=False) + "\n", path)


def merged(entries: Iterable[Entry], changes: Iterable[Entry], order: Sequence[str]) -> list[Entry]:
    """Return entries with others added, or in the place of those of the same name.

    Args:
        entries: The record so far.
        changes: What has been measured since.
        order: Names of networks that come first, in this order.
    """
    by_name = {entry["name"]: entry for entry in (*entries, *changes)}
    positions = {name: position for position, name in enumerate(order)}
    return sorted(
        by_name.values(), key=lambda entry: (positions.get(entry["name"], 99), entry["name"])
    )


def render(entries: Sequence[Entry]) -> str:
    """Return the text of the record: one row of numbers a line."""
    lines = []
    for entry in entries:
        rows = ",\n  ".join(f"{_json(name)}: {_json(row)}" for name, row in entry["rows"].items())
        fields = [f'"{name}": {_json(value)}' for name, value in entry.items() if name != "rows"]
        lines.append("{" + ",\n ".join([*fields, f'"rows": {{\n  {rows}\n }}']) + "}")
    return f'{{"schema_version": {SCHEMA_VERSION},\n"networks": [\n' + ",\n".join(lines) + "\n]}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def differences(entry: Entry) -> dict[str, float]:
    """Return by how many dB each choice of a network differs from what ships."""
    rows = entry["rows"]
    shipped = rows[SHIPPED]["sqnr_db"]
    return {name: row["sqnr_db"] - shipped for name, row in rows.items() if "sqnr_db" in row}


def body(entries: Sequence[Entry]) -> str:
    """Return the block of the document."""
    names = [entry["name"] for entry in entries]
    rows = [row(choice.name, entries) for choice in CHOICES]
    lines = [
        table(("SQNR, dB", *names, "Mean"), rows, right=range(1, len(names) + 2)),
        "",
        "“=”: nothing in the network changes; “–”: not measured, and not in the mean.",
        "",
        *(f"- {entry['name']}: {images(entry)}, `{entry['command']}`" for entry in entries),
        "",
        *(f"Measured on {text}." for text in dict.fromkeys(map(machine, entries))),
    ]
    return "\n".join(lines)


def row(choice: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return a row of the table: SQNR of what ships, the difference from it of anything else."""
    if choice == SHIPPED:
        cells = [f"{entry['rows'][choice]['sqnr_db']:.1f}" for entry in entries]
        return (f"**{choice}**", *cells, "")
    cells, values = [], []
    for entry in entries:
        difference = differences(entry).get(choice)
        stays = entry["rows"].get(choice, {}).get("same", False)
        cells.append(f"{difference:+.1f}" if difference is not None else "=" if stays else "–")
        if difference is not None or stays:
            values.append(difference or 0.0)
    return (choice, *cells, f"{fmean(values):+.2f}" if values else "")


def images(entry: Entry) -> str:
    """Return on how many images an entry was measured."""
    identity = entry["identity"]
    return f"{identity['images']:,} images, calibrated on {identity['calibration_images']}"


def machine(entry: Entry) -> str:
    """Return where an entry was measured."""
    identity = entry["identity"]
    return f"{identity['cpu']} ({identity['instruction_set']}), torch {identity['torch']}"
