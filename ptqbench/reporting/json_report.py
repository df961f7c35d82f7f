"""The result as JSON, for machines and for later."""

from __future__ import annotations

import json
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptqbench.core.atomic import atomic_path
from ptqbench.errors import UserError

if TYPE_CHECKING:  # The CLI checks the path before it may import what brings torch along.
    from ptqbench.evaluation.result import Report


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the result."""
    text = resources.files("ptqbench.reporting").joinpath("result.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def to_json(report: Report) -> str:
    """The report as JSON text, ending in a newline."""
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def check_writable(path: Path) -> None:
    """Say at once that ``path`` cannot be written, and not after an hour of measuring.

    Raises:
        UserError: It is a folder, its folder is missing, or writing is not permitted.
    """
    if path.is_dir():
        raise UserError(f"Cannot write the result to {path}: it is a folder. Name a file in it.")
    if not path.parent.is_dir():
        raise UserError(
            f"Cannot write the result to {path}: there is no folder {path.parent}. "
            "Create it, or name another file."
        )
    if not os.access(path.parent, os.W_OK):
        raise UserError(
            f"Cannot write the result to {path}: the folder {path.parent} is not writable. "
            "Name a file in another folder."
        )


def write_json(report: Report, path: Path) -> None:
    """Write the report to ``path``, whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    text = to_json(report)
    check_writable(path)
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Cannot write the result to {path}: {reason}. Nothing was left there; "
            "make room or name another file, and run again."
        ) from error
