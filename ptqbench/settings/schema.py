"""What can be set, and what a value must look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ptqbench.core.names import nearest
from ptqbench.errors import UserError
from ptqbench.settings import values
from ptqbench.settings.run_settings import BROKEN_SHARE
from ptqbench.settings.thresholds import INSTRUCTION_SETS, TOP1_POLICIES, Thresholds, two_policies

PROFILES = ("local", "ci")
REPORTS = ("json", "markdown")
"""Formats that a test session can report in."""


@dataclass(frozen=True)
class Key:
    """A setting.

    Attributes:
        name: Dotted name, as in a file.
        parse: Checks and converts a value; raises ValueError with what is expected.
        default: Its value where nobody sets it.
        per_model: Whether a model's table may set it too.
    """

    name: str
    parse: values.Parser
    default: object = None
    per_model: bool = True


_THRESHOLDS: dict[str, values.Parser] = {
    "accuracy": values.share,
    "accuracy_points": values.points,
    "reference_top1": values.share,
    "top5": values.share,
    "agreement": values.share,
    "sqnr_db": values.number,
    "size_ratio": values.number,
    "max_bytes": values.size,
    "speedup": values.number,
}


def _threshold_keys() -> dict[str, Key]:
    """A key for each field of `Thresholds`, one per instruction set where it is a mapping."""
    keys = {}
    for field in fields(Thresholds):
        name, parse = f"thresholds.{field.name}", _THRESHOLDS[field.name]
        parts = INSTRUCTION_SETS if "Mapping" in str(field.type) else ()
        for full in [f"{name}.{part}" for part in parts] or [name]:
            keys[full] = Key(full, parse)
    return keys


KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key("models", values.names, (), per_model=False),
        Key("plugins", values.modules, (), per_model=False),
        Key("recipes", values.paths, (), per_model=False),
        Key("profile", values.choice(*PROFILES), "local", per_model=False),
        *(Key(f"report.{name}", values.path, per_model=False) for name in REPORTS),
        Key("baselines", values.path, per_model=False),
        Key("backends", values.names, ()),
        Key("weights", values.weights, "fixture"),
        Key("data", values.data, "fixture"),
        Key("limit", values.whole(1)),
        Key("broken_share", values.share, BROKEN_SHARE),
        Key("workers", values.whole(1)),
        Key("input_size", values.whole(1)),
        Key("batch_size", values.whole(1), 1),
        Key("threads", values.whole(1)),
        Key("seed", values.whole(0), 0),
        *_threshold_keys().values(),
    )
}
"""Every setting by its dotted name."""


def threshold_names() -> tuple[str, ...]:
    """Names of the thresholds, as the marker takes them."""
    return tuple(field.name for field in fields(Thresholds))


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
        Values by dotted name.

    Raises:
        UserError: A key is unknown, a value is wrong, or there are two policies for top-1.
    """
    found: dict[str, object] = {}
    for name, value in _flat(table, where):
        key = KEYS.get(name)
        if key is None or (per_model and not key.per_model):
            raise UserError(_unknown(name, where, per_model))
        try:
            found[name] = key.parse(value, folder)
        except ValueError as error:
            raise UserError(
                f"Wrong value for {name!r} in {where}: expected {error}, but got {value!r}."
            ) from None
    check_policies(found, where)
    return found


POLICIES = tuple(f"thresholds.{name}" for name in TOP1_POLICIES)
"""Settings of which one is in force: whoever sets one replaces those that others set."""


def check_policies(table: Mapping[str, object], where: str) -> None:
    """See that somebody sets one policy for top-1 at most.

    Raises:
        UserError: There are two.
    """
    chosen = [name for name in POLICIES if name in table]
    if len(chosen) > 1:
        raise UserError(two_policies(chosen, where[0].upper() + where[1:]))


def overlaid(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Two tables of values as one; a policy for top-1 above replaces the one below."""
    replaced = POLICIES if any(name in above for name in POLICIES) else ()
    return {**{name: value for name, value in below.items() if name not in replaced}, **above}


def parse_thresholds(texts: Sequence[str], option: str) -> dict[str, object]:
    """What a repeated option says about thresholds.

    Args:
        texts: Each ``NAME=VALUE``, like ``accuracy=0.985`` or ``speedup.avx2=1.5``; of two
            for one name the later counts.
        option: Name of the option, for messages.

    Returns:
        Values by dotted name.

    Raises:
        UserError: One is not of that form, a name is unknown, a value is wrong, or there
            are two policies for top-1.
    """
    found: dict[str, object] = {}
    known = [key.name.partition(".")[2] for key in KEYS.values() if _is_threshold(key.name)]
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
        found |= parse_table({f"thresholds.{name}": _literal(value)}, Path(), option)
    check_policies(found, option)
    return found


def _is_threshold(name: str) -> bool:
    return name.startswith("thresholds.")


def _literal(text: str) -> object:
    """A number, if it is written like one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def threshold_changes(table: Mapping[str, object]) -> dict[str, Any]:
    """Thresholds among values by dotted name, as `Thresholds.replaced` takes them."""
    changes: dict[str, Any] = {}
    for name, value in table.items():
        if _is_threshold(name):
            field, dot, instructions = name.partition(".")[2].partition(".")
            if dot:
                changes.setdefault(field, {})[instructions] = value
            else:
                changes[field] = value
    return changes


def _flat(table: Mapping[str, object], where: str, prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in table.items():
        full = prefix + name
        nested = any(key.startswith(full + ".") for key in KEYS)
        if nested and isinstance(value, Mapping):
            pairs += _flat(value, where, full + ".")
        elif nested and full.startswith("thresholds."):
            # One number for every instruction set.
            pairs += [(f"{full}.{instructions}", value) for instructions in INSTRUCTION_SETS]
        elif nested:
            raise UserError(f"Wrong value for {full!r} in {where}: expected a table of settings.")
        else:
            pairs.append((full, value))
    return pairs


def _unknown(name: str, where: str, per_model: bool) -> str:
    if name in KEYS:
        return (
            f"{name!r} in {where} cannot be set for one model. Set it for all, outside of the "
            "tables of models."
        )
    known = [key.name for key in KEYS.values() if key.per_model or not per_model]
    # What follows the last dot is what was misspelt; only its neighbours are of interest.
    parent, dot, _ = name.rpartition(".")
    siblings = [key for key in known if key.startswith(parent + dot)] or known
    return f"Unknown setting {name!r} in {where}. {nearest(name, siblings)}"
