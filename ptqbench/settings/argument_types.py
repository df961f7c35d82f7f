"""What the value of an option must look like.

Each function turns the text of an argument into a value, or raises ArgumentTypeError with
what is expected.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ptqbench.core.paths import is_file


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = natural(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be at least 1, but got 0")
    return value


def natural(text: str) -> int:
    """A whole number of at least 0."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, but got {text!r}")
    return int(text)


def size(text: str) -> int:
    """Bytes, with or without a unit."""
    from ptqbench.settings import values as config_values

    try:
        return config_values.size(text, Path())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {error}, but got {text!r}") from None


def share(text: str) -> float:
    """A fraction of 1."""
    from ptqbench.settings import values as config_values

    try:
        return config_values.share(float(text), Path())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a share between 0 and 1 (0.01 is 1 %), but got {text!r}"
        ) from None


def three(text: str) -> tuple[float, float, float]:
    """Three finite numbers with commas between, for red, green and blue."""
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be three numbers like 0.485,0.456,0.406, but got {text!r}"
        ) from None
    if not all(map(math.isfinite, (red, green, blue))):
        raise argparse.ArgumentTypeError(f"must be finite numbers, but got {text!r}")
    return red, green, blue


def three_positive(text: str) -> tuple[float, float, float]:
    """Three numbers above 0."""
    values = three(text)
    if min(values) <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text!r}")
    return values


def classes(text: str) -> tuple[str, ...]:
    """Class names: with commas between, or the lines of a text file."""
    path = Path(text)
    if "," in text:
        names = text.split(",")
    elif is_file(path):
        try:
            names = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise argparse.ArgumentTypeError(f"cannot read {path}: {error}") from None
    else:
        raise argparse.ArgumentTypeError(
            f"must be a text file or names with commas between, but there is no file {text!r}"
        )
    names = [name.strip() for name in names if name.strip()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise argparse.ArgumentTypeError(f"names {', '.join(repeated)} more than once")
    if not names:
        raise argparse.ArgumentTypeError("names no class")
    return tuple(names)
