"""The settings that a weights file brings along: preprocessing and class names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptqbench.errors import UserError
from ptqbench.models.preprocessing import Preprocessing
from ptqbench.registry import nearest

SETTINGS = ("resize", "crop", "mean", "std", "interpolation", "classes")
"""What a sidecar may set, and an override too."""

_RECORDS = ("training", "float32_top1", "evaluation_images")
"""What the sidecars of the fixture weights record besides."""


def read_settings(
    weights: Path, overrides: Mapping[str, object]
) -> tuple[Preprocessing, tuple[str, ...] | None]:
    """Preprocessing and class names of a weights file.

    Args:
        weights: Path of the weights file, beside which the sidecar lies, if there is one.
        overrides: Values that win over the sidecar's; None counts as not given.

    Returns:
        The preprocessing (ImageNet's where nothing is said) and the class names or None.

    Raises:
        UserError: The sidecar cannot be read, or a setting is unknown or wrong.
    """
    path, given = _sidecar(weights)
    options = {key: value for key, value in overrides.items() if value is not None}
    _check_keys(options, SETTINGS, "the given settings")
    origin = f"the sidecar {path}" if path else f"the settings of {weights}"
    origin = f"{origin} with the given options" if options and path else origin
    merged: dict[str, Any] = {k: v for k, v in {**given, **options}.items() if k in SETTINGS}
    classes = merged.pop("classes", None)
    try:
        return Preprocessing(**merged), None if classes is None else _class_names(classes)
    except UserError as error:
        raise UserError(f"In {origin}: {error}") from None


def _sidecar(weights: Path) -> tuple[Path | None, dict[str, Any]]:
    for path in (weights.with_name(weights.name + ".json"), weights.with_suffix(".json")):
        if path != weights and path.is_file():
            return path, _read(path)
    return None, {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The sidecar {path} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"The sidecar {path} must be a JSON object with {', '.join(SETTINGS)}.")
    _check_keys(content, SETTINGS + _RECORDS, f"the sidecar {path}")
    return content


def _check_keys(content: Mapping[str, object], allowed: Sequence[str], where: str) -> None:
    for key in content:
        if key not in allowed:
            raise UserError(f"Unknown setting {key!r} in {where}. {nearest(key, list(SETTINGS))}")


def _class_names(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"classes={value!r} must be a list of names, in the order of the outputs.")
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise UserError(f"classes names {', '.join(repeated)} more than once.")
    return tuple(names)
