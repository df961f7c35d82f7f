"""The settings that a weights file brings along: preprocessing and class names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ptqbench.core.names import nearest
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError

SETTINGS = ("resize", "crop", "mean", "std", "interpolation", "classes", "transform_input")
"""What a sidecar may set, and an override too."""

_RECORDS = ("training", "float32_top1", "evaluation_images")
"""What the sidecars of the fixture weights record besides."""


@dataclass(frozen=True)
class Brought:
    """What weights bring along beside their parameters.

    Attributes:
        preprocessing: How pictures are prepared.
        classes: Class names in output order, or None if they are not known.
        transform_input: Whether the model itself turns ImageNet's normalisation into that of
            its first training (GoogLeNet and Inception with torchvision's own weights).
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: tuple[str, ...] | None = None
    transform_input: bool = False


def read_settings(weights: Path, overrides: Mapping[str, object], default: Brought) -> Brought:
    """What a weights file brings along.

    Args:
        weights: Path of the weights file, beside which the sidecar lies, if there is one.
        overrides: Values that win over the sidecar's; None counts as not given.
        default: What holds where neither says anything.

    Raises:
        UserError: The sidecar cannot be read, or a setting is unknown or wrong.
    """
    path, given = _sidecar(weights)
    origin = f"the sidecar {path}" if path else f"the settings of {weights}"
    if path and any(value is not None for value in overrides.values()):
        origin += " with the given options"
    return overridden(default, given, overrides, origin)


def overridden(
    default: Brought, given: Mapping[str, Any], overrides: Mapping[str, object], origin: str
) -> Brought:
    """Settings over other settings.

    Args:
        default: What holds where nothing else is said.
        given: Values by name, of `SETTINGS`; others are left alone.
        overrides: Values that win over these; None counts as not given.
        origin: Where they come from, for messages.

    Raises:
        UserError: An override is unknown, or a value is wrong.
    """
    options = {key: value for key, value in overrides.items() if value is not None}
    _check_keys(options, SETTINGS, "the given settings")
    merged: dict[str, Any] = {k: v for k, v in {**given, **options}.items() if k in SETTINGS}
    classes = merged.pop("classes", None)
    transform = merged.pop("transform_input", default.transform_input)
    try:
        return Brought(
            replace(default.preprocessing, **merged),
            default.classes if classes is None else _class_names(classes),
            _truth("transform_input", transform),
        )
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


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{name}={value!r} must be true or false.")
    return value


def _class_names(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"classes={value!r} must be a list of names, in the order of the outputs.")
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise UserError(f"classes names {', '.join(repeated)} more than once.")
    return tuple(names)
