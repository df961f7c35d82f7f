"""Read and write recipes as TOML with comments.

A recipe that was written and read back is equal and has the same hash.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptqbench.core.names import nearest
from ptqbench.errors import UserError
from ptqbench.recipes.recipe import MEASURED, Recipe
from ptqbench.settings import values
from ptqbench.settings.parsing import parse_table, threshold_changes
from ptqbench.settings.thresholds import Thresholds

if TYPE_CHECKING:
    import tomlkit

_WIDTH = 92
_TABLES = ("thresholds", "probe", "unsupported")

_COMMENTS = {
    "backend": (
        f'Default backend: fbgemm, x86, onednn, qnnpack, or "{MEASURED}" for the fastest on the',
        "machine where it runs.",
    ),
    "fusion": (
        "Modules that become one kernel each; <relu> is a call of the function. If unset:",
        "everything that can be fused.",
    ),
    "int8_modules": (
        "Number of convolutions and linear layers that become int8. If unset: all but those in",
        "keep_float. If you change keep_float, update or remove this value.",
    ),
    "flow": ("fx traces the model; eager is for models with QuantStub and FloatFunctional.",),
    "observer": (
        "How ranges of activations are determined: histogram (least squared error) or minmax.",
    ),
    "per_channel": ("Weight scales per output channel.",),
    "spare_bit": (
        "What gives up range where sums of two 8 by 8 bit products saturate: pairs of weights,",
        "7-bit weights, 7-bit activations or none.",
    ),
    "bias_correction": ("Whether biases take back the mean error of rounded weights.",),
    "calibration_images": ("Number of images that ranges are determined from.",),
    "keep_float": (
        'Modules that stay float32, with all below them ("head", "blocks.0.*"), and functions',
        "(<add>, <mul>, <cat>).",
    ),
    "fused_groups": ("Number of groups that must be found if fusion is unset.",),
    "thresholds": ("Thresholds of the gates; docs/gates.md describes all of them.",),
    "probe": ("Replaces these thresholds under probe weights.",),
    "unsupported": ("Why the model cannot be quantized for a backend.",),
}
"""Comment of each field."""


def to_toml(
    recipe: Recipe, heading: Iterable[str] = (), notes: Mapping[str, str] | None = None
) -> str:
    """Write a recipe as TOML with comments.

    Args:
        recipe: Any recipe.
        heading: Lines of a comment at the top.
        notes: Further comments by field, and for ``speedup``.
    """
    import tomlkit  # takes 50 ms, and only printing a recipe needs it

    notes = notes or {}
    document = tomlkit.document()
    for line in heading:
        document.add(tomlkit.comment(line))
    for each in fields(Recipe):
        name, value = each.name, getattr(recipe, each.name)
        if value is None or (name in _TABLES and not value):
            continue
        if document.body:
            document.add(tomlkit.nl())
        comments = [*_COMMENTS.get(name, ()), *textwrap.wrap(notes.get(name, ""), _WIDTH)]
        if name in _TABLES:
            document.add(name, _table(name, value, comments, notes))
            continue
        for line in comments:
            document.add(tomlkit.comment(line))
        document.add(name, _groups_item(value) if name == "fusion" else tomlkit.item(value))
    return tomlkit.dumps(document)


def _table(
    name: str, value: Any, comments: Iterable[str], notes: Mapping[str, str]
) -> tomlkit.items.Table:
    """A table whose comments follow its header."""
    import tomlkit

    content = dict(asdict(value) if isinstance(value, Thresholds) else value)
    speedup = content.pop("speedup", {}) if name == "thresholds" else {}
    table = tomlkit.table()
    for line in comments:
        table.add(tomlkit.comment(line))
    for key, entry in content.items():
        if entry is not None:
            table.add(key, tomlkit.item(entry))
    if name == "thresholds":
        wrapped = textwrap.wrap(notes.get("speedup", ""), _WIDTH)
        inner = tomlkit.table() if speedup else table
        for line in wrapped:
            inner.add(tomlkit.comment(line))
        for key, entry in speedup.items():
            inner.add(key, entry)
        if speedup:
            table.add(tomlkit.nl())
            table.add("speedup", inner)
    return table


def _groups_item(groups: Sequence[Sequence[str]]) -> tomlkit.items.Array:
    """An array with one group a line."""
    import tomlkit

    array = tomlkit.array()
    for group in groups:
        array.add_line(list(group), indent="  ")
    if groups:
        array.add_line(indent="")
    return array


def from_toml(text: str, where: str) -> Recipe:
    """Read a recipe.

    Args:
        text: TOML; only ``model`` is required.
        where: Name of the file, for messages.

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
        raise UserError(f'The recipe {where} does not name its model: model = "…".')
    values_by_field: dict[str, Any] = {"backend": MEASURED, "fusion": None, "int8_modules": None}
    for name, value in content.items():
        try:
            values_by_field[name] = _PARSERS[name](value, where)
        except ValueError as error:
            raise UserError(
                f"Wrong value for {name!r} in the recipe {where}: expected {error}, but got "
                f"{value!r}."
            ) from None
    values_by_field.setdefault("thresholds", Thresholds())
    return Recipe(**values_by_field)


def read(path: Path) -> Recipe:
    """Read a recipe from a file.

    Raises:
        UserError: The file cannot be read, or the recipe is wrong.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:  # not UTF-8, or NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The recipe {path} cannot be read: {reason}.") from None
    return from_toml(text, str(path))


_Parse = Callable[[Any, str], object]


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
    changes = threshold_changes(parse_table({"thresholds": value}, Path(), f"the recipe {where}"))
    return {name: _as_written(value.get(name), parsed) for name, parsed in changes.items()}


def _as_written(value: object, parsed: Any) -> Any:
    if isinstance(parsed, Mapping):
        entries = value if isinstance(value, Mapping) else {}
        return {name: _as_written(entries.get(name), entry) for name, entry in parsed.items()}
    return value if isinstance(value, int) and value == parsed else parsed


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
    "spare_bit": _simple(values.choice("pairs", "weights", "activations", "none")),
    "bias_correction": _truth,
    "calibration_images": _simple(values.whole(1)),
    "keep_float": _names,
    "fused_groups": _simple(values.whole(0)),
    "thresholds": _thresholds_of,
    "probe": _changes,
    "unsupported": _reasons,
}
