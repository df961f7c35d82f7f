"""The committed record of the whole matrix, ``fixtures/coverage.json``, to be read.

It is made by ``python -m benchmarks.coverage --write-results``; docs/coverage.md shows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SHOWN = (
    "flow",
    "recipe",
    "status",
    "reason",
    "verdict",
    "gates",
    "metrics",
    "intervals",
    "evaluation_images",
    "calibration_images",
    "pairs",
    "fused",
    "int8_share_of_macs",
)
"""Fields of a case that whoever asks for the matrix is told."""


def measured_cases(path: Path) -> dict[tuple[str, str], tuple[Mapping[str, Any], ...]]:
    """What was measured, by model and backend; nothing where the file is missing.

    Args:
        path: The record.
    """
    if not path.is_file():
        return {}
    found: dict[tuple[str, str], tuple[Mapping[str, Any], ...]] = {}
    for cpu, run in json.loads(path.read_text("utf-8"))["runs"].items():
        for case in run["cases"]:
            model = run["models"][case["model"]]
            entry = {
                "cpu": cpu,
                "instruction_set": run["machine"].get("instruction_set"),
                "weights": model.get("weights"),
                **{name: case[name] for name in _SHOWN if name in case},
            }
            key = (case["model"], case["backend"])
            found[key] = (*found.get(key, ()), entry)
    return found
