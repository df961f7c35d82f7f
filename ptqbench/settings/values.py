"""What the value of a setting must look like.

Each parser turns what a file or an option says into a value, and raises ValueError with
what is expected. Relative paths start at the folder that it is given.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from ptqbench.core.paths import user_path
from ptqbench.errors import UserError
from ptqbench.settings import weights_specifier as sources
from ptqbench.settings.data_specifier import ALLOWED, resolved

Parser = Callable[[object, Path], object]
"""Turns what a file or an option says into a value; relative paths start at the folder."""

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
    "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
_HOME = "a path whose home folder exists (./~name for a name that begins with ~)"
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def names(value: object, folder: Path) -> tuple[str, ...]:
    """Names or wildcards, each once; one name may stand alone."""
    given = [value] if isinstance(value, str) else value
    if (
        not isinstance(given, Sequence)
        or not given
        or not all(isinstance(name, str) and name.strip() for name in given)
    ):
        raise ValueError("a list of names or wildcards")
    return tuple(dict.fromkeys(name.strip() for name in given))


def modules(value: object, folder: Path) -> tuple[str, ...]:
    """Names of Python modules, each once; one may stand alone."""
    given = [value] if isinstance(value, str) else value
    if (
        not isinstance(given, Sequence)
        or not all(isinstance(name, str) for name in given)
        or not all(name.endswith(".py") or _MODULE.fullmatch(name) for name in given)
    ):
        raise ValueError('a list of Python modules, like ["my_package.quant"]')
    return tuple(dict.fromkeys(given))


def weights(value: object, folder: Path) -> str:
    """The name of a source of weights, or a path."""
    if not isinstance(value, str) or not value:
        raise ValueError(sources.ALLOWED)
    return value if sources.is_source_name(value) else str(path(value, folder))


def data(value: object, folder: Path) -> str:
    """The name of a data set, or a path."""
    if not isinstance(value, str) or not value:
        raise ValueError(ALLOWED)
    try:
        return resolved(value, folder)
    except UserError:
        raise ValueError(_HOME if "~" in value else f"{ALLOWED}; this one needs its ROOT") from None


def path(value: object, folder: Path) -> Path:
    """A path."""
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError("a path")
    try:
        return folder / user_path(value)
    except UserError:
        raise ValueError(_HOME) from None


def paths(value: object, folder: Path) -> tuple[Path, ...]:
    """Paths, each once; one may stand alone."""
    given = [value] if isinstance(value, (str, Path)) else value
    if not isinstance(given, Sequence) or not all(isinstance(each, (str, Path)) for each in given):
        raise ValueError("a list of paths")
    return tuple(dict.fromkeys(path(each, folder) for each in given))


def choice(*allowed: str) -> Parser:
    """One of some words."""

    def parse(value: object, folder: Path) -> str:
        if value not in allowed:
            raise ValueError(" or ".join(allowed))
        return str(value)

    return parse


def whole(least: int) -> Parser:
    """A whole number."""

    def parse(value: object, folder: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"a whole number of at least {least}")
        return value

    return parse


def number(value: object, folder: Path) -> float:
    """A number that is not negative."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value <= sys.float_info.max
    ):
        raise ValueError("a number of at least 0")
    return float(value)


def share(value: object, folder: Path) -> float:
    """A fraction of 1."""
    found = number(value, folder)
    if found > 1:
        raise ValueError("a share between 0 and 1 (0.99 is 99 %)")
    return found


def points(value: object, folder: Path) -> float:
    """Percentage points."""
    found = number(value, folder)
    if found > 100:
        raise ValueError("percentage points between 0 and 100 (1 is one point)")
    return found


def size(value: object, folder: Path) -> int:
    """Bytes: a whole number, or a text with a unit (``3 MiB``, ``2.5 MB``), rounded down."""
    said = ValueError("bytes, as a whole number of at least 1 or like `3 MiB` or `2.5 MB`")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise said
    found = _SIZE.fullmatch(value if isinstance(value, str) else repr(value))
    if found is None or found[2].lower() not in _UNITS:
        raise said
    amount = Fraction(found[1]) * _UNITS[found[2].lower()]
    # Without a unit it is bytes, and of those there is no half.
    if amount < 1 or (not found[2] and amount.denominator != 1):
        raise said
    return int(amount)
