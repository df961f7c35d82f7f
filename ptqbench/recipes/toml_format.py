"""Recipes as files: TOML that explains itself, and reading it back.

Reading what was written gives an equal recipe with the same hash.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ptqbench.core.names import nearest
from ptqbench.errors import UserError
from ptqbench.recipes.recipe import MEASURED, Recipe
from ptqbench.settings import values
from ptqbench.settings.parsing import parse_table, threshold_changes
from ptqbench.settings.thresholds import Thresholds

_EXPLAINED = {
    "backend": (
        "What runs it where nobody names another backend: fbgemm, x86, onednn, qnnpack, or",
        f'"{MEASURED}" for whichever is the fastest where it runs.',
    ),
    "fusion": (
        "What becomes one kernel each, by module; <relu> is a call of the function. Left out:",
        "everything that can be fused.",
    ),
    "int8_modules": (
        "How many convolutions and linear layers become int8. Left out: all that keep_float",
        "does not name. Whoever changes keep_float changes this too, or removes it.",
    ),
    "flow": ("fx traces the model; eager is for models with QuantStub and FloatFunctional.",),
    "observer": (
        "How ranges of activations are found: histogram (least squared error) or minmax.",
    ),
    "per_channel": ("Weight scales per output channel.",),
    "spare_bit": (
        "Which side gives up a bit where 8 by 8 bits saturate: weights, activations or none.",
    ),
    "calibration_images": ("How many images ranges are taken from.",),
    "keep_float": (
        'Modules that stay float32, with all below them ("head", "blocks.0.*"), and functions',
        "(<add>, <mul>, <cat>).",
    ),
    "fused_groups": ("How many groups must be found where fusion is left out.",),
    "thresholds": ("What the gates ask for; docs/gates.md names all of them.",),
    "probe": ("What replaces these thresholds under probe weights.",),
    "unsupported": ("Why it cannot be quantized for a backend.",),
}


def to_toml(
    recipe: Recipe, heading: Iterable[str] = (), notes: Mapping[str, str] | None = None
) -> str:
    """A recipe as TOML with comments.

    Args:
        recipe: Of any model.
        heading: Lines of a comment at the top.
        notes: What else is said about a field, by its name.
    """
    notes = notes or {}
    lines = [f"# {line}".rstrip() for line in heading]
    tables: list[str] = []
    for each in fields(Recipe):
        name, value = each.name, getattr(recipe, each.name)
        if value is None or (name in _TABLES and not value):
            continue
        said = [*_EXPLAINED.get(name, ()), *_wrapped(notes.get(name, ""))]
        comment = [f"# {line}" for line in said]
        if name == "thresholds":
            tables += ["", *comment, *_thresholds(recipe.thresholds, notes)]
        elif name in _TABLES:
            tables += ["", *comment, f"[{name}]", *_entries(value)]
        else:
            lines += ["", *comment, f"{name} = {_value(value, deep=name == 'fusion')}"]
    return "\n".join([*lines, *tables]).lstrip("\n") + "\n"


def from_toml(text: str, where: str) -> Recipe:
    """Read a recipe.

    Args:
        text: TOML; only ``model`` has to be there.
        where: What it is, for messages.

    Raises:
        UserError: It is not valid TOML, a key is unknown, or a value is wrong.
    """
    try:
        content = tomllib.loads(text)
    except ValueError as error:
        raise UserError(f"The recipe {where} is not valid TOML: {error}.") from None
    except RecursionError:
        raise UserError(f"The recipe {where} is nested too deeply.") from None
    for name in content:
        if name not in _PARSERS:
            hint = nearest(name, list(_PARSERS))
            raise UserError(f"Unknown key {name!r} in the recipe {where}. {hint}")
    if "model" not in content:
        raise UserError(f'The recipe {where} does not say which model it is for: model = "…".')
    found: dict[str, Any] = {"backend": MEASURED, "fusion": None, "int8_modules": None}
    for name, value in content.items():
        try:
            found[name] = _PARSERS[name](value, where)
        except ValueError as error:
            raise UserError(
                f"Wrong value for {name!r} in the recipe {where}: expected {error}, but got "
                f"{value!r}."
            ) from None
    found.setdefault("thresholds", Thresholds())
    return Recipe(**found)


def read(path: Path) -> Recipe:
    """Read a recipe from a file.

    Raises:
        UserError: There is none, or it is wrong.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:  # not UTF-8, or NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The recipe {path} cannot be read: {reason}.") from None
    return from_toml(text, str(path))


_Parse = Callable[[Any, str], object]
_TABLES = ("thresholds", "probe", "unsupported")


def _simple(kind: values.ValueType) -> _Parse:
    return lambda value, where: kind.parse(value, Path())


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a name")
    return value


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not _is_names(value):
        raise ValueError('a list of names, like ["head"]')
    return tuple(value)


def _groups(value: Any, where: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or not all(_is_names(g) and len(g) > 1 for g in value):
        raise ValueError('a list of groups of two names or more, like [["conv1", "bn1", "relu"]]')
    return tuple(tuple(group) for group in value)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _changes(value: Any, where: str) -> dict[str, Any]:
    """Thresholds that are set, by field; whole numbers stay whole, as the hash sees them."""
    if not isinstance(value, Mapping):
        raise ValueError("a table of thresholds")
    found = threshold_changes(parse_table({"thresholds": value}, Path(), f"the recipe {where}"))
    return {name: _as_written(value.get(name), parsed) for name, parsed in found.items()}


def _as_written(given: object, parsed: Any) -> Any:
    if isinstance(parsed, Mapping):
        texts = given if isinstance(given, Mapping) else {}
        return {name: _as_written(texts.get(name), value) for name, value in parsed.items()}
    return given if isinstance(given, int) and given == parsed else parsed


def _thresholds_of(value: Any, where: str) -> Thresholds:
    return Thresholds().replaced(_changes(value, where))


def _reasons(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(v, str) and v for v in value.values()):
        raise ValueError("a table of reasons by backend")
    return dict(value)


_PARSERS: Mapping[str, _Parse] = {
    "model": _text,
    "backend": _text,
    "fusion": _groups,
    "int8_modules": _simple(values.whole(0)),
    "flow": _simple(values.choice("fx", "eager")),
    "observer": _simple(values.choice("histogram", "minmax")),
    "per_channel": _truth,
    "spare_bit": _simple(values.choice("weights", "activations", "none")),
    "calibration_images": _simple(values.whole(1)),
    "keep_float": _names,
    "fused_groups": _simple(values.whole(0)),
    "thresholds": _thresholds_of,
    "probe": _changes,
    "unsupported": _reasons,
}


def _thresholds(thresholds: Thresholds, notes: Mapping[str, str]) -> list[str]:
    given = {name: value for name, value in asdict(thresholds).items() if value is not None}
    speedup = given.pop("speedup")
    lines = ["[thresholds]", *_entries(given)]
    said = [f"# {line}" for line in _wrapped(notes.get("speedup", ""))]
    if speedup:
        return [*lines, "", *said, "[thresholds.speedup]", *_entries(speedup)]
    return [*lines, *said]


def _entries(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(name)} = {_value(value)}" for name, value in table.items()]


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _value(name)


def _value(value: object, deep: bool = False) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML string, but for one control character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no threshold.")
        return repr(value)
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_entries(value))} }}" if value else "{}"
    if isinstance(value, Sequence):
        items = [_value(item) for item in value]
        if deep and items:
            return "[\n" + "".join(f"  {item},\n" for item in items) + "]"
        return f"[{', '.join(items)}]"
    return str(value)


def _wrapped(text: str, width: int = 92) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
