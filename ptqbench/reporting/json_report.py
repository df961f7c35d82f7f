"""The result as JSON."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptqbench.evaluation.result import Report


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the result."""
    text = resources.files("ptqbench.reporting").joinpath("result.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def to_json(report: Report) -> str:
    """Return the report as JSON text, ending in a newline."""
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
