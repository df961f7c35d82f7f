"""Read the settings that accompany a weights file: preprocessing and class names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ptqbench.core.names import nearest
from ptqbench.core.paths import is_file
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError

SETTINGS = ("resize", "crop", "mean", "std", "interpolation", "classes", "transform_input")
"""Settings of a sidecar, each of which can be overridden."""

WEIGHTS_KEY = "weights_key"
"""Key in a sidecar that names the set of weights to take from a checkpoint."""

_RECORDS = ("training", "float32_top1", "evaluation_images")
"""Further keys in the sidecars of the fixture weights."""


@dataclass(frozen=True)
class WeightsSettings:
    """Settings that belong to weights.

    Attributes:
        preprocessing: How pictures are prepared.
        classes: Class names in output order, or None if they are not known.
        transform_input: Whether the model itself turns ImageNet's normalisation into that of
            its original training (GoogLeNet and Inception with torchvision's weights).
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: tuple[str, ...] | None = None
    transform_input: bool = False


def read_settings(
    weights: Path, overrides: Mapping[str, object], default: WeightsSettings
) -> WeightsSettings:
    """Read the settings of a weights file.

    Args:
        weights: Path of the weights file; the sidecar, if there is one, is next to it.
        overrides: Values that take precedence over the sidecar's; None counts as unset.
        default: Settings that neither of the two sets.

    Raises:
        UserError: The sidecar cannot be read, or a setting is unknown or wrong.
    """
    path, content = _sidecar(weights)
    origin = f"the sidecar {path}" if path else f"the settings of {weights}"
    if path and any(value is not None for value in overrides.values()):
        origin += " with the given options"
    return override_settings(default, content, overrides, origin)


def read_key(weights: Path) -> str | None:
    """Read from the sidecar which set of weights of a file to take; None: not set.

    Raises:
        UserError: The sidecar cannot be read, or the key is not a text.
    """
    path, content = _sidecar(weights)
    key = content.get(WEIGHTS_KEY)
    if key is None or (isinstance(key, str) and key):
        return key
    raise UserError(f"In the sidecar {path}: {WEIGHTS_KEY}={key!r} must be a text.")


def override_settings(
    default: WeightsSettings,
    content: Mapping[str, Any],
    overrides: Mapping[str, object],
    origin: str,
) -> WeightsSettings:
    """Replace settings by those of a sidecar, and these by overrides.

    Args:
        default: Settings that neither of the two sets.
        content: Values by name; names that are not in `SETTINGS` are ignored.
        overrides: Values that take precedence over the content; None counts as unset.
        origin: Source of the values, for messages.

    Raises:
        UserError: An override is unknown, or a value is wrong.
    """
    options = {key: value for key, value in overrides.items() if value is not None}
    _check_keys(options, SETTINGS, "the given settings")
    merged: dict[str, Any] = {k: v for k, v in {**content, **options}.items() if k in SETTINGS}
    classes = merged.pop("classes", None)
    transform = merged.pop("transform_input", default.transform_input)
    try:
        return WeightsSettings(
            replace(default.preprocessing, **merged),
            default.classes if classes is None else _class_names(classes),
            _truth("transform_input", transform),
        )
    except UserError as error:
        raise UserError(f"In {origin}: {error}") from None
    except OverflowError:
        raise UserError(f"In {origin}: a number is too large for mean or std.") from None


def _sidecar(weights: Path) -> tuple[Path | None, dict[str, Any]]:
    for path in (weights.with_name(weights.name + ".json"), weights.with_suffix(".json")):
        if path != weights and is_file(path):
            return path, _read(path)
    return None, {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The sidecar {path} cannot be read as JSON: {error}.") from None
    except RecursionError:
        raise UserError(
            f"The sidecar {path} cannot be read as JSON: it is nested too deeply."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"The sidecar {path} must be a JSON object with {', '.join(SETTINGS)}.")
    _check_keys(content, (*SETTINGS, WEIGHTS_KEY, *_RECORDS), f"the sidecar {path}")
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
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UserError(f"classes names {', '.join(repeated)} more than once.")
    return tuple(names)
