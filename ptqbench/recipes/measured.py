"""What was measured of each model, for the recipes to promise; kept in ``measured.json``.

The file is written by a command (``python -m benchmarks.coverage --write-recipes``) and read
when recipes are imported, without torch. Its form, one line per model, sorted by name::

    {
    "schema_version": 1,
    "models": {
    "alexnet": {"backend": "x86", "fused_groups": 7, "int8_modules": 8, "probe": {...}, ...},
    "convnext_tiny": {...}
    }
    }

A model's entry has any of the fields of :class:`Measured`; what is left out is unknown, and
its recipe promises only what needs no measuring. Numbers are thresholds, with their margin
taken off already: the command decides how much, this module only reads. The six models with
hand-written recipes read nothing from here.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Measured:
    """What was measured of one model.

    Attributes:
        fused_groups: Fusion groups in the model's graph; None: not counted yet.
        int8_modules: Convolutions and linear layers that become int8; None likewise.
        backend: The fastest backend that passed, to be recommended; None: not measured.
        size_ratio: How many times smaller the int8 file must be, the worst backend's; None:
            not measured.
        speedup: How many times faster int8 must be on ``backend``, by instruction set.
        probe: Thresholds under ``probe`` weights, by field of ``Thresholds``: ``accuracy``,
            ``agreement``, ``sqnr_db``.
        unsupported: Why a backend cannot do it, by its name: what torch said.
    """

    fused_groups: int | None = None
    int8_modules: int | None = None
    backend: str | None = None
    size_ratio: float | None = None
    speedup: Mapping[str, float] = field(default_factory=dict)
    probe: Mapping[str, Any] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The entry of the file: fields that say something, by name."""
        return {
            name: value
            for name, value in sorted(asdict(self).items())
            if value is not None and value != {}
        }


@functools.cache
def load(path: Path = FILE) -> Mapping[str, Measured]:
    """Read the file; a model that it lacks has not been measured.

    Args:
        path: Another file of the same form.

    Raises:
        ValueError: The file has another form.
    """
    if not path.exists():
        return {}
    content = json.loads(path.read_text("utf-8"))
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{path} is not of schema version {SCHEMA_VERSION}.")
    known = {each.name for each in fields(Measured)}
    for model, entry in content["models"].items():
        if unknown := set(entry) - known:
            raise ValueError(f"{path} has unknown fields for {model}: {sorted(unknown)}.")
    return {model: Measured(**entry) for model, entry in content["models"].items()}


def measured(model: str) -> Measured:
    """What was measured of a model, an empty record if nothing was."""
    return load().get(model, Measured())


def render(models: Mapping[str, Measured]) -> str:
    """The text of the file for these measurements; equal measurements give equal bytes."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(models[name].to_dict(), sort_keys=True)}"
        for name in sorted(models)
    ]
    body = ",\n".join(lines)
    return f'{{\n"schema_version": {SCHEMA_VERSION},\n"models": {{\n{body}\n}}\n}}\n'
