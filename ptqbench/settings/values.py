"""Types of setting values: how they are checked, read from options, and described.

A file and an option of the command line share one type. An option's text is first read as
the value that a file would contain (`ValueType.from_text`) and then checked like it.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptqbench.core.paths import is_file, user_path
from ptqbench.errors import UserError
from ptqbench.settings import data_specifier, weights_specifier

JsonSchema = Mapping[str, object]
"""A fragment of a JSON Schema."""


@dataclass(frozen=True)
class ValueType:
    """The type of a setting's value.

    Attributes:
        parse: Checks and converts a value; raises ValueError with what is expected. Relative
            paths start at the folder.
        schema: The JSON Schema of the value in a file.
        from_text: Converts an option's text into the value that a file would contain.
        check_exists: Checks that the source that a text names exists; takes the text and who
            set it, and raises UserError.
    """

    parse: Callable[[object, Path], object]
    schema: JsonSchema
    from_text: Callable[[str], object] = str
    check_exists: Callable[[str, str], None] | None = None

    def check_text(self, text: str) -> object:
        """Return the value that an option's text stands for, unless it is wrong.

        Raises:
            ValueError: The value is not of this type.
        """
        value = self.from_text(text)
        self.parse(value, Path())
        return value


_LARGEST = sys.float_info.max
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII)
_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
    "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)
_ONE_OR_MORE = {"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": True}


def literal(text: str) -> object:
    """Return the number that a text is written like, or else the text."""
    text = text.strip()
    if len(text) > 300 or not _NUMBER.fullmatch(text):
        return text
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def names_in_text(text: str) -> tuple[str, ...]:
    """Split names at commas.

    Raises:
        ValueError: There is no name.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ValueError("at least one name")
    return names


def _names(value: object, folder: Path) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if (
        not isinstance(names, Sequence)
        or not names
        or not all(isinstance(name, str) and name.strip() for name in names)
    ):
        raise ValueError("a list of names or wildcards")
    return tuple(dict.fromkeys(name.strip() for name in names))


NAMES = ValueType(
    _names, {"oneOf": [{"type": "string", "minLength": 1}, {**_ONE_OR_MORE, "minItems": 1}]}
)
"""Names or wildcards, each once; a single name may stand alone."""


def _modules(value: object, folder: Path) -> tuple[str, ...]:
    modules = [value] if isinstance(value, str) else value
    if (
        not isinstance(modules, Sequence)
        or not all(isinstance(name, str) for name in modules)
        or not all(name.endswith(".py") or _MODULE.fullmatch(name) for name in modules)
    ):
        raise ValueError('a list of Python modules, like ["my_package.quant"]')
    return tuple(dict.fromkeys(modules))


MODULES = ValueType(_modules, {"oneOf": [{"type": "string", "minLength": 1}, _ONE_OR_MORE]})
"""Names of Python modules, each once; a single one may stand alone."""


def _weights(value: object, folder: Path) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(weights_specifier.ALLOWED)
    if weights_specifier.is_source_name(value):
        return value
    path = _path(value, folder)
    # `Path` drops the `./` that tells a file from the source of the same name.
    return str(path.absolute() if weights_specifier.is_source_name(str(path)) else path)


WEIGHTS = ValueType(
    _weights, {"type": "string", "minLength": 1}, check_exists=weights_specifier.check_weights
)
"""The name of a source of weights, or a path."""


def _data(value: object, folder: Path) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(data_specifier.ALLOWED)
    try:
        return data_specifier.resolved(value, folder)
    except UserError as error:
        reason = str(error) if "~" in value else "this one needs its ROOT"
        raise ValueError(f"{data_specifier.ALLOWED}; {reason}") from None


DATA = ValueType(
    _data, {"type": "string", "minLength": 1}, check_exists=data_specifier.check_source
)
"""The name of a data set, or a path."""


def _path(value: object, folder: Path) -> Path:
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError("a path")
    try:
        return folder / user_path(value)
    except UserError as error:
        raise ValueError(f"a path. {error}") from None


PATH = ValueType(_path, {"type": "string", "minLength": 1})
"""A path."""


def _paths(value: object, folder: Path) -> tuple[Path, ...]:
    paths = [value] if isinstance(value, (str, Path)) else value
    if not isinstance(paths, Sequence) or not all(isinstance(each, (str, Path)) for each in paths):
        raise ValueError("a list of paths")
    return tuple(dict.fromkeys(_path(each, folder) for each in paths))


PATHS = ValueType(_paths, {"oneOf": [{"type": "string", "minLength": 1}, _ONE_OR_MORE]})
"""Paths, each once; a single one may stand alone."""


def _text(value: object, folder: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value.strip()


TEXT = ValueType(_text, {"type": "string", "minLength": 1})
"""A text."""


def choice(*allowed: str) -> ValueType:
    """Return the type of a value that is one of some words."""

    def parse(value: object, folder: Path) -> str:
        if value not in allowed:
            close = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"{', '.join(allowed[:-1])} or {allowed[-1]}{hint}")
        return str(value)

    return ValueType(parse, {"enum": list(allowed)})


def whole(least: int, most: int | None = None) -> ValueType:
    """Return the type of a whole number from ``least`` to ``most``; None: of any size."""

    def parse(value: object, folder: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"a whole number of at least {least}")
        if most is not None and value > most:
            raise ValueError(f"a whole number of at most {most}")
        return value

    schema = {"type": "integer", "minimum": least}
    return ValueType(parse, schema if most is None else {**schema, "maximum": most}, literal)


def _number(value: object, most: float, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise ValueError(expected)
    return float(value)


def _bounded(most: float, expected: str) -> ValueType:
    schema: dict[str, object] = {"type": "number", "minimum": 0}
    if most < _LARGEST:
        schema["maximum"] = most
    return ValueType(lambda value, folder: _number(value, most, expected), schema, literal)


NUMBER = _bounded(_LARGEST, "a number of at least 0")
"""A number that is not negative."""
SHARE = _bounded(1, "a share between 0 and 1 (0.99 is 99 %)")
"""A fraction of 1."""
POINTS = _bounded(100, "percentage points between 0 and 100 (1 is one point)")
"""Percentage points."""


def _size(value: object, folder: Path) -> int:
    wrong = ValueError("bytes, as a whole number of at least 1 or like `3 MiB` or `2.5 MB`")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise wrong
    match = _SIZE.fullmatch(value if isinstance(value, str) else repr(value))
    if match is None or match[2].lower() not in _UNITS:
        raise wrong
    from fractions import Fraction  # takes longer to import than all of the rest

    amount = Fraction(match[1]) * _UNITS[match[2].lower()]
    # Without a unit it is bytes, and there is no half byte.
    if amount < 1 or (not match[2] and amount.denominator != 1):
        raise wrong
    return int(amount)


SIZE = ValueType(
    _size,
    {
        "oneOf": [
            {"type": "integer", "minimum": 1},
            {
                "type": "string",
                "pattern": r"^\s*\d+(\.\d+)?\s*([kKmMgG]?[iI]?[bB])?\s*$",
            },
        ]
    },
)
"""Bytes: a whole number, or a text with a unit (``3 MiB``, ``2.5 MB``), rounded down."""


def _channels(value: object, above: float, expected: str) -> tuple[float, float, float]:
    numbers = [literal(part) for part in value.split(",")] if isinstance(value, str) else value
    if (
        not isinstance(numbers, Sequence)
        or len(numbers) != 3
        or not all(isinstance(each, (int, float)) for each in numbers)
        or not all(above < each <= _LARGEST for each in numbers)
    ):
        raise ValueError(expected)
    red, green, blue = map(float, numbers)
    return red, green, blue


def _channel_type(above: float, expected: str) -> ValueType:
    limit: dict[str, object] = {} if above < 0 else {"exclusiveMinimum": above}
    schema = {"type": "array", "items": {"type": "number", **limit}, "minItems": 3, "maxItems": 3}
    return ValueType(lambda value, folder: _channels(value, above, expected), schema)


MEAN = _channel_type(-_LARGEST, "three finite numbers like 0.485,0.456,0.406")
"""A number for each of the channels red, green and blue."""
STD = _channel_type(0, "three finite numbers above 0 like 0.229,0.224,0.225")
"""A number above 0 for each of the channels red, green and blue."""


def _class_names(value: object, folder: Path) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",") if "," in value else _lines(value, folder)
    if not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise ValueError("a list of class names, or a text file with one name per line")
    names = [name.strip() for name in value if name.strip()]
    if not names:
        raise ValueError("at least one class name")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"each class name once ({', '.join(repeated)} is repeated)")
    return tuple(names)


def _lines(text: str, folder: Path) -> list[str]:
    path = _path(text, folder)
    if not is_file(path):
        raise ValueError(
            f"a text file or names with commas between (there is no file {text[:200]!r})"
        )
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"a readable text file ({error})") from None


CLASS_NAMES = ValueType(
    _class_names, {"oneOf": [{"type": "string", "minLength": 1}, {**_ONE_OR_MORE, "minItems": 1}]}
)
"""Class names: a list, names with commas between, or the lines of a text file."""
