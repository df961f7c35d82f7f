"""Check tables of settings against the table of `schema`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptqbench.core.names import nearest
from ptqbench.errors import UserError
from ptqbench.settings.schema import POLICIES, SETTINGS, threshold_names
from ptqbench.settings.thresholds import INSTRUCTION_SETS, two_policies
from ptqbench.settings.values import literal

_THRESHOLDS = "thresholds."


def parse_table(
    table: Mapping[str, object], folder: Path, where: str, per_model: bool = False
) -> dict[str, object]:
    """Check a table of settings.

    Args:
        table: Nested as in a file.
        folder: Where relative paths start.
        where: What the table is, for messages.
        per_model: Whether it belongs to one model.

    Returns:
        Values by dotted key.

    Raises:
        UserError: A key is unknown, a value is wrong, or there are two policies for top-1.
    """
    parsed: dict[str, object] = {}
    for key, value in _flat(table, where):
        setting = SETTINGS.get(key)
        if setting is None or (per_model and not setting.per_model):
            raise UserError(_unknown(key, where, per_model))
        try:
            parsed[key] = setting.type.parse(value, folder)
        except ValueError as error:
            raise UserError(
                f"Wrong value for {key!r} in {where}: expected {error}, but got {value!r}."
            ) from None
    check_policies(parsed, where)
    return parsed


def check_policies(table: Mapping[str, object], where: str) -> None:
    """Check that at most one policy for top-1 is set.

    Raises:
        UserError: There are two.
    """
    chosen = [name for name in POLICIES if name in table]
    if len(chosen) > 1:
        raise UserError(two_policies(chosen, where[0].upper() + where[1:]))


def overlaid(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Merge two tables of values; a policy for top-1 above replaces the one below."""
    replaced = POLICIES if any(name in above for name in POLICIES) else ()
    return {**{name: value for name, value in below.items() if name not in replaced}, **above}


def parse_thresholds(texts: Sequence[str], option: str) -> dict[str, object]:
    """Parse the values of a repeated option for thresholds.

    Args:
        texts: Each ``NAME=VALUE``, like ``accuracy=0.985`` or ``speedup.avx2=1.5``; of two
            for one name the later counts.
        option: Name of the option, for messages.

    Returns:
        Values by dotted key.

    Raises:
        UserError: One is not of that form, a name is unknown, a value is wrong, or there
            are two policies for top-1.
    """
    parsed: dict[str, object] = {}
    known = [key.removeprefix(_THRESHOLDS) for key in SETTINGS if key.startswith(_THRESHOLDS)]
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals or not value:
            raise UserError(
                f"{option} takes NAME=VALUE, like accuracy=0.99 or speedup.avx2=1.5, but got "
                f"{text!r}."
            )
        if name not in (*known, *threshold_names()):
            hint = nearest(name, [*threshold_names(), *known])
            raise UserError(f"{option} {text}: Unknown threshold {name!r}. {hint}")
        parsed |= parse_table({f"{_THRESHOLDS}{name}": literal(value)}, Path(), option)
    check_policies(parsed, option)
    return parsed


def threshold_changes(table: Mapping[str, object]) -> dict[str, Any]:
    """Return the thresholds among values by dotted key, as `Thresholds.replaced` takes them."""
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key.startswith(_THRESHOLDS):
            field, dot, instructions = key.removeprefix(_THRESHOLDS).partition(".")
            if dot:
                changes.setdefault(field, {})[instructions] = value
            else:
                changes[field] = value
    return changes


def _flat(table: Mapping[str, object], where: str, prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in table.items():
        full = prefix + name
        nested = any(key.startswith(full + ".") for key in SETTINGS)
        if nested and isinstance(value, Mapping):
            pairs += _flat(value, where, full + ".")
        elif nested and full.startswith(_THRESHOLDS):
            # One number for every instruction set.
            pairs += [(f"{full}.{instructions}", value) for instructions in INSTRUCTION_SETS]
        elif nested:
            raise UserError(f"Wrong value for {full!r} in {where}: expected a table of settings.")
        else:
            pairs.append((full, value))
    return pairs


def _unknown(key: str, where: str, per_model: bool) -> str:
    if key in SETTINGS:
        return (
            f"{key!r} in {where} cannot be set for one model. Set it for all, outside of the "
            "tables of models."
        )
    known = [row.key for row in SETTINGS.values() if row.per_model or not per_model]
    # The misspelt part follows the last dot; only its neighbours are of interest.
    parent, dot, _ = key.rpartition(".")
    siblings = [other for other in known if other.startswith(parent + dot)] or known
    return f"Unknown setting {key!r} in {where}. {nearest(key, siblings)}"
