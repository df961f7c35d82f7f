"""Format names for messages and files, and compare dotted module paths."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence


def nearest(name: str, allowed: Sequence[str]) -> str:
    """Return a sentence that suggests the names nearest to ``name``, or lists what is allowed."""
    close = difflib.get_close_matches(name, allowed, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Known: {', '.join(allowed)}."


def first_few(
    names: Sequence[str], most: int = 5, *, separator: str = ", ", total: int | None = None
) -> str:
    """Join the first names, and say how many more there are: ``a, b and 3 more``.

    Args:
        names: All of them, or the first ones.
        most: Number of names to show.
        separator: Between two names.
        total: Number of all names; by default that of ``names``.
    """
    shown = names[:most]
    more = (len(names) if total is None else total) - len(shown)
    joined = separator.join(shown)
    return f"{joined} and {more:,} more" if more > 0 else joined


def safe_file_name(name: str) -> str:
    """Turn a name into a part of a file name: ``my.nets:net`` becomes ``my.nets_net``.

    Args:
        name: Any text.
    """
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".")


def is_within(path: str, parent: str) -> bool:
    """Whether a dotted path (``layer1.0.conv1``) is ``parent`` or lies below it.

    Args:
        path: Of a module.
        parent: Of the module that may contain it.
    """
    return path == parent or path.startswith(f"{parent}.")


def printable(text: str) -> str:
    r"""Escape what no encoding can write: file names that are not UTF-8 (``caf\xe9.jpg``).

    Such names reach Python as surrogates. Everything else stays as it is.

    Args:
        text: Any text.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:  # surrogates that do not stand for bytes
            return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text
