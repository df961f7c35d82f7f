"""Find the file with the settings that apply, and read it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ptqbench.core.paths import exists, is_file
from ptqbench.errors import UserError
from ptqbench.settings.layers import COMMAND_LINE, Layer, Settings
from ptqbench.settings.model_catalog import ModelCatalog
from ptqbench.settings.parsing import parse_table
from ptqbench.settings.schema import SETTINGS

PYPROJECT = "pyproject.toml"
SETTINGS_FILE = "ptqbench.toml"

_REPOSITORY = (".git", ".hg", ".svn", ".jj", ".bzr")
"""What the root of a repository contains, by version control system."""


def load(
    start: Path,
    catalog: ModelCatalog,
    command_line: Layer | None = None,
    *,
    file: Path | None = None,
    file_option: str = "--config",
) -> Settings:
    """Read the settings that apply in a folder.

    Whether they may run code is left to `check_owner`, whether paths exist to `check_paths`.

    Args:
        start: The folder; the nearest file in it or above it counts.
        catalog: The models.
        command_line: Settings of the command line.
        file: The file to read instead of the nearest.
        file_option: The option that names the file, for messages.

    Raises:
        UserError: A file cannot be read, two files compete, a key is unknown or a value is
            wrong.
    """
    command_line = command_line or Layer(COMMAND_LINE)
    location = find(start) if file is None else (file, _table(file, file_option))
    if location is None:
        return Settings(catalog, command_line)
    path, table = location
    return _from_table(path, table, catalog, command_line)


def _from_table(
    path: Path, table: Mapping[str, object], catalog: ModelCatalog, command_line: Layer
) -> Settings:
    in_project = path.name == PYPROJECT
    prefix = f"{path.name} [tool.ptqbench" if in_project else f"{path.name} ["
    dot = "." if in_project else ""
    general = f"{prefix}]" if in_project else path.name
    if not path.suffix:  # `recipe` and `default` are origins themselves
        general = str(path.absolute())
    rest = dict(table)
    tables = rest.pop("model", {})
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
        catalog,
        command_line,
        tuple(models),
        Layer(general, parse_table(rest, path.parent, general)),
        path,
    )


def find(start: Path) -> tuple[Path, Mapping[str, object]] | None:
    """Return the nearest file with settings, and its table.

    The search ends at the root of the repository and at the home folder.

    Args:
        start: The folder in which it begins.

    Raises:
        UserError: The file is not TOML, cannot be read, or there are two in one folder.
    """
    for folder in _folders(start):
        alone, project = folder / SETTINGS_FILE, folder / PYPROJECT
        table = _tool_table(project)
        if is_file(alone) and table is not None:
            raise UserError(
                f"Both {alone} and [tool.ptqbench] in {project} have settings. Keep one of them."
            )
        if is_file(alone):
            return alone, _read(alone)
        if table is not None:
            return project, table
    return None


def _folders(start: Path) -> Iterator[Path]:
    """Yield a folder and those above it, up to the repository's root or the home folder."""
    try:
        home = Path.home().resolve()
    except (RuntimeError, OSError):
        home = None
    for folder in (start, *start.parents):
        yield folder
        if folder.resolve() == home or any(exists(folder / name) for name in _REPOSITORY):
            return


def check_owner(settings: Settings, file_option: str = "--config") -> None:
    """Check that settings that can run code or write files belong to the user, or to root.

    A file that the user has named need not be checked.

    Args:
        settings: From a file that was searched for.
        file_option: The option that names a file, for the message.

    Raises:
        UserError: They belong to somebody else.
    """
    path = settings.file
    if path is None or (owner := _foreign_owner(path)) is None:
        return
    layers = [layer for _, layer in settings.models] + [settings.general]
    keys = [key for layer in layers for key in layer.values if SETTINGS[key].needs_trust]
    chosen = settings.general.get("models")
    # module:function is imported.
    keys += ["models"] if chosen and any(":" in name for name in chosen.value) else []
    keys += [f'model."{pattern}"' for pattern, _ in settings.models if ":" in pattern]
    if keys:
        raise UserError(
            f"The settings in {path} belong to another user (number {owner}) and set "
            f"{', '.join(dict.fromkeys(keys))}, which could run code or write files with your "
            f"permissions. If you trust the file, name it: {file_option} {path}."
        )


def _foreign_owner(path: Path) -> int | None:
    """Return the owner of a file, a link or its folder if it is neither the user nor root."""
    if not hasattr(os, "geteuid"):
        return None
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        trusted.add(int(os.environ["SUDO_UID"]))
    # A link makes a trusted file apply where somebody else wants its relative paths to start.
    owners = (status.st_uid for status in (os.stat(path), os.lstat(path), os.stat(path.parent)))
    return next((owner for owner in owners if owner not in trusted), None)


def _table(path: Path, option: str) -> Mapping[str, object]:
    """Return the settings of a file that the user has named."""
    if not is_file(path):
        raise UserError(f"{option} {path}: there is no such file.")
    if path.name != PYPROJECT:
        return _read(path)
    table = _tool_table(path)
    if table is None:
        raise UserError(f"{option} {path}: it has no table [tool.ptqbench].")
    return table


def _tool_table(path: Path) -> Mapping[str, object] | None:
    try:
        # Most projects say nothing about ptqbench and need not be parsed for it.
        if not is_file(path) or b"ptqbench" not in path.read_bytes():
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


def check_paths(settings: Settings) -> None:
    """Check that the weights and images that settings name exist.

    Raises:
        UserError: Weights that are not a file, or data that does not exist.
    """
    for layer in settings.layers:
        for key in layer.values:
            check_exists, value = SETTINGS[key].type.check_exists, layer.get(key)
            if check_exists is not None and value is not None:
                check_exists(value.value, value.origin)
