"""The files that settings stand in: finding the one that applies, and reading it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptqbench.errors import UserError
from ptqbench.settings.data_specifier import check_source
from ptqbench.settings.layers import Layer, Settings
from ptqbench.settings.schema import parse_table
from ptqbench.settings.weights_specifier import check_weights

PYPROJECT = "pyproject.toml"
OWN_FILE = "ptqbench.toml"


def load(start: Path, command_line: Layer | None = None) -> Settings:
    """Read the settings that apply in a folder.

    Args:
        start: The folder; the nearest file in it or above it counts.
        command_line: What options say.

    Raises:
        UserError: A file cannot be read, two files compete, a key is unknown or a value
            is wrong.
    """
    command_line = command_line or Layer("command line")
    found = find(start)
    if found is None:
        settings = Settings(command_line)
    else:
        path, table = found
        prefix = f"{path.name} [tool.ptqbench" if path.name == PYPROJECT else f"{path.name} ["
        settings = _from_table(path, table, prefix, command_line)
    _check_sources(settings)
    return settings


def _from_table(
    path: Path, table: Mapping[str, object], prefix: str, command_line: Layer
) -> Settings:
    rest = dict(table)
    tables = rest.pop("model", {})
    dot = "." if path.name == PYPROJECT else ""
    general = f"{prefix}]" if dot else path.name
    if not isinstance(tables, Mapping) or not all(isinstance(t, Mapping) for t in tables.values()):
        raise UserError(
            f"Wrong value for 'model' in {general}: expected a table for each model or "
            f'wildcard, like {prefix}{dot}model."resnet*"].'
        )
    models = []
    for pattern, content in tables.items():
        where = f'{prefix}{dot}model."{pattern}"]'
        models.append((pattern, Layer(where, parse_table(content, path.parent, where, True))))
    return Settings(
        command_line,
        tuple(models),
        Layer(general, parse_table(rest, path.parent, general)),
        path,
    )


def find(start: Path) -> tuple[Path, Mapping[str, object]] | None:
    """The nearest file with settings, and its table.

    Raises:
        UserError: It is not TOML, cannot be read, or there are two in one folder.
    """
    for folder in (start, *start.parents):
        own, project = folder / OWN_FILE, folder / PYPROJECT
        table = _tool_table(project)
        if own.is_file() and table is not None:
            raise UserError(
                f"Both {own} and [tool.ptqbench] in {project} have settings. Keep one of them."
            )
        if own.is_file():
            return own, _read(own)
        if table is not None:
            return project, table
    return None


def _tool_table(path: Path) -> Mapping[str, object] | None:
    try:
        # Most projects say nothing about ptqbench and need not be parsed for it.
        if not path.is_file() or b"ptqbench" not in path.read_bytes():
            return None
    except OSError:
        return None
    tool = _read(path).get("tool", {})
    table = tool.get("ptqbench") if isinstance(tool, Mapping) else None
    if table is not None and not isinstance(table, Mapping):
        raise UserError(f"[tool.ptqbench] in {path} must be a table of settings.")
    return table


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The settings in {path} cannot be read: {error}.") from None
    except RecursionError:
        raise UserError(
            f"The settings in {path} cannot be read: they are nested too deeply."
        ) from None


def _check_sources(settings: Settings) -> None:
    """Say at once that a path leads nowhere.

    Raises:
        UserError: Weights that are no file, or data that is not there.
    """
    layers = [settings.command_line, *(layer for _, layer in settings.models), settings.general]
    for layer in layers:
        weights, data = layer.get("weights"), layer.get("data")
        if weights:
            check_weights(weights.value, weights.origin)
        if data:
            check_source(data.value, data.origin)
