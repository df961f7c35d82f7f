"""Measurements that recipes take their thresholds from, stored in ``measured.json``.

The file is written by a command (``python -m benchmarks.coverage --write-recipes``) and read
when recipes are imported, without torch. Its form, one line per model, sorted by name::

    {
    "schema_version": 1,
    "models": {
    "alexnet": {"backend": "x86", "fused_groups": 7, "int8_modules": 8, "probe": {...}, ...},
    "convnext_tiny": {...}
    }
    }

An entry has any of the fields of :class:`ModelMeasurements`; missing ones are unknown, and the
recipe then promises only what needs no measurement. Numbers are thresholds, margins already
subtracted by the command. The six hand-written recipes take nothing from here.
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
class ModelMeasurements:
    """Measurements of one model.

    Attributes:
        fused_groups: Number of fusion groups in the model's graph; None: not counted yet.
        int8_modules: Number of convolutions and linear layers that become int8; None: likewise.
        backend: The fastest backend that passed, which is recommended; None: not measured.
        size_ratio: How many times smaller the int8 file must be on the worst backend; None:
            not measured.
        speedup: How many times faster int8 must be on ``backend``, by instruction set.
        probe: Thresholds under ``probe`` weights, by field of ``Thresholds``: ``accuracy``,
            ``agreement``, ``sqnr_db``.
        unsupported: Error of torch by the name of a backend that cannot quantize the model.
    """

    fused_groups: int | None = None
    int8_modules: int | None = None
    backend: str | None = None
    size_ratio: float | None = None
    speedup: Mapping[str, float] = field(default_factory=dict)
    probe: Mapping[str, Any] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the file: fields that are set, by name."""
        return {
            name: value
            for name, value in sorted(asdict(self).items())
            if value is not None and value != {}
        }


@functools.cache
def load_measurements(path: Path = FILE) -> Mapping[str, ModelMeasurements]:
    """Read the measurements by model.

    Args:
        path: Another file of the same format.

    Raises:
        ValueError: The file has another format.
    """
    if not path.exists():
        return {}
    content = json.loads(path.read_text("utf-8"))
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{path} is not of schema version {SCHEMA_VERSION}.")
    known = {each.name for each in fields(ModelMeasurements)}
    for model, entry in content["models"].items():
        if unknown := set(entry) - known:
            raise ValueError(f"{path} has unknown fields for {model}: {sorted(unknown)}.")
    return {model: ModelMeasurements(**entry) for model, entry in content["models"].items()}


def measurements_of(model: str) -> ModelMeasurements:
    """Return the measurements of a model, an empty record if there are none."""
    return load_measurements().get(model, ModelMeasurements())


def render(models: Mapping[str, ModelMeasurements]) -> str:
    """Render the file for these measurements; equal measurements give equal bytes."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(models[name].to_dict(), sort_keys=True)}"
        for name in sorted(models)
    ]
    body = ",\n".join(lines)
    return f'{{\n"schema_version": {SCHEMA_VERSION},\n"models": {{\n{body}\n}}\n}}\n'
