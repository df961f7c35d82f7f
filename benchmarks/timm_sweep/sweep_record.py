"""The committed record of the sweep, ``fixtures/timm.json``: what became of each architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.timm_sweep.architectures import CONVOLUTIONAL, in_turn

_FIELDS = ("status", "reason", "side", "int8", "gates", "details", "seconds")
_MACHINE = ("cpu", "instruction_set", "system", "python", "torch", "timm")
CONVOLUTIONAL_KIND, OTHER_KIND = "convolutional", "other"


def collected(folder: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the results of a folder in it.

    Args:
        folder: With a file for each architecture that has been measured.
        before: The record so far; what the folder does not have is taken from it.
    """
    entries: dict[str, Any] = {}
    machines = {json.dumps(machine): machine for machine in before.get("machines", ())}
    for name in in_turn():
        path = folder / f"{name}.json"
        content = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if "status" not in content:  # not measured, or it is being measured
            if name in before.get("architectures", {}):
                entries[name] = before["architectures"][name]
            continue
        kind = CONVOLUTIONAL_KIND if name in CONVOLUTIONAL else OTHER_KIND
        fields = {key: content[key] for key in _FIELDS if key in content}
        entries[name] = {"family": content.get("family", name), "kind": kind, **fields}
        if "machine" in content:
            machine = {key: content["machine"].get(key) for key in _MACHINE}
            machines[json.dumps(machine)] = machine
    return {"machines": list(machines.values()), "architectures": entries}


def render(content: Mapping[str, Any]) -> str:
    """Return the record as JSON, a line for each architecture."""
    lines = [
        f"  {json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}"
        for name, entry in content["architectures"].items()
    ]
    machines = json.dumps(content["machines"], ensure_ascii=False)
    rest = ",\n".join(lines)
    return f'{{\n "machines": {machines},\n "architectures": {{\n{rest}\n }}\n}}\n'
