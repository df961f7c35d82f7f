"""What was measured of a network in each runtime, as JSON that a later run continues."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.blocks import ROOT
from ptqbench.core.atomic import write_text

RECORD = ROOT / "fixtures" / "peers.json"
SCHEMA_VERSION = 1
Entry = dict[str, Any]
"""A network: ``model``, ``identity``, ``command``, ``seconds`` of building by file, ``rows`` by
name of the candidate, and ``latency_ms`` by name with the files that were timed together."""


def new_entry(model: str, identity: Mapping[str, object]) -> Entry:
    """Return a network of which nothing has been measured."""
    empty: Entry = {"seconds": {}, "rows": {}, "latency": {}}
    return {"model": model, "identity": dict(identity), "command": "", **empty}


def read_entry(path: Path, record: Path, model: str, identity: Mapping[str, object]) -> Entry:
    """Return what was measured before under the same conditions, else a new entry.

    Args:
        path: What an earlier run wrote; it need not exist.
        record: The committed record; it need not exist.
        model: Name of the network.
        identity: Whatever the numbers depend on: machine, versions, weights, images.
    """
    entries = read_record(record)
    if path.is_file():
        entries.insert(0, json.loads(path.read_text("utf-8")))
    same = json.loads(json.dumps(identity))
    for entry in entries:
        if entry["model"] == model and entry["identity"] == same:
            return entry
    return new_entry(model, identity)


def has_files_of(path: Path, entry: Entry) -> bool:
    """Whether an earlier run, which wrote ``path``, left files that belong to the entry."""
    if not path.is_file():
        return False
    before: Entry = json.loads(path.read_text("utf-8"))
    return before["identity"] == json.loads(json.dumps(entry["identity"]))


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
    """Return entries with others added, or in the place of those of the same network and CPU.

    Args:
        entries: The record so far.
        changes: What has been measured since.
        order: Names of networks that come first, in this order.
    """
    by_key = {_key(entry): entry for entry in (*entries, *changes)}
    positions = {name: position for position, name in enumerate(order)}
    return sorted(
        by_key.values(),
        key=lambda entry: (*_key(entry)[1:], positions.get(entry["model"], 99), entry["model"]),
    )


def _key(entry: Entry) -> tuple[str, str, str]:
    machine = entry["identity"]["machine"]
    return entry["model"], machine["instruction_set"], machine["cpu"]


def render(entries: Sequence[Entry]) -> str:
    """Return the text of the record: one row of numbers a line."""
    lines = []
    for entry in entries:
        fields = [
            f'"{name}": {_object(value) if name == "rows" else _json(value)}'
            for name, value in entry.items()
        ]
        lines.append("{" + ",\n ".join(fields) + "}")
    return f'{{"schema_version": {SCHEMA_VERSION},\n"networks": [\n' + ",\n".join(lines) + "\n]}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _object(members: Mapping[str, object]) -> str:
    return "{\n  " + ",\n  ".join(f"{_json(n)}: {_json(v)}" for n, v in members.items()) + "\n }"
