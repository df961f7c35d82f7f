"""Generate the JSON Schema of the settings, for editors.

``python -m ptqbench.settings.json_schema`` prints it. It describes ``ptqbench.toml``, which is
also the content of ``[tool.ptqbench]`` in ``pyproject.toml``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

from ptqbench.settings.schema import POLICIES, SETTINGS
from ptqbench.settings.setting import Setting

SCHEMA_FILE = Path(__file__).parent / "ptqbench.schema.json"
"""The schema that ships with the package."""


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema of a file with settings."""
    schema = _table(SETTINGS.values())
    per_model = _table(setting for setting in SETTINGS.values() if setting.per_model)
    schema["properties"]["model"] = {
        "type": "object",
        "description": "Settings of some models, by name or wildcard.",
        "additionalProperties": {"$ref": "#/$defs/model"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of ptqbench",
        "description": "ptqbench.toml, or [tool.ptqbench] in pyproject.toml",
        **schema,
        "$defs": {"model": per_model},
    }


def _table(settings: Iterable[Setting]) -> dict[str, Any]:
    """Return the schema of a table with these settings, nested as in a file."""
    table: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    for setting in settings:
        *parents, name = setting.key.split(".")
        inner = table
        for depth, parent in enumerate(parents):
            nested = {"type": "object", "properties": {}, "additionalProperties": False}
            if depth > 0:
                # A threshold per instruction set may also be one value for all.
                nested = {"oneOf": [dict(setting.type.schema), nested]}
            inner = inner["properties"].setdefault(parent, nested)
            inner = inner["oneOf"][1] if "oneOf" in inner else inner
        inner["properties"][name] = _property(setting)
    names = [key.rpartition(".")[2] for key in POLICIES]
    table["properties"]["thresholds"]["not"] = {
        "anyOf": [{"required": list(pair)} for pair in combinations(names, 2)]
    }
    return table


def _property(setting: Setting) -> dict[str, Any]:
    described = {"description": setting.full_help, **setting.type.schema}
    if setting.default not in (None, ()) and not setting.unset:
        described["default"] = setting.default
    return described


def schema_text() -> str:
    """Return the JSON Schema as the shipped file contains it."""
    return json.dumps(settings_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
