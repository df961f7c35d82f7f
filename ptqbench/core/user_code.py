"""Find the line of a user's code that an error comes from."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ptqbench.core.paths import is_file

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class CodeLine:
    """A line of a source file.

    Attributes:
        file: Its path.
        number: Counted from 1; None if it is not known.
    """

    file: str
    number: int | None

    @property
    def place(self) -> str:
        """File and line: ``nets.py, line 12``."""
        return f"{self.file}, line {self.number}"

    @property
    def code(self) -> str:
        """The text of the line; empty if it cannot be read."""
        return "" if self.number is None else linecache.getline(self.file, self.number).strip()

    def __str__(self) -> str:
        return f"{self.place}: {self.code}" if self.code else self.place


def innermost_line(error: BaseException, outside: Iterable[Path]) -> CodeLine | None:
    """Find the last line of an error's traceback that is not in ptqbench or certain folders.

    Args:
        error: As raised, with its traceback.
        outside: Folders of code that is passed over.

    Returns:
        The line; None if there is none in a file.
    """
    folders = (_PACKAGE, *outside)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if is_file(path) and not any(path.is_relative_to(folder) for folder in folders):
            return CodeLine(frame.filename, frame.lineno)
    return None


def first_line(error: BaseException) -> str:
    """Return the class of an error and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def describe_error(error: BaseException) -> str:
    """Say what went wrong and where: ``NameError: … at nets.py, line 12: model = Nett()``.

    A line of the user's files is preferred to one of installed packages.

    Args:
        error: As raised, with its traceback.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} at {CodeLine(error.filename, error.lineno)}"
    text = " ".join(str(error).split()).rstrip(".")
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    line = innermost_line(error, library_folders()) or innermost_line(error, ())
    return reason if line is None else f"{reason} at {line}"


def library_folders() -> set[Path]:
    """Return the folders of the standard library and of installed packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return {Path(path) for name in names if (path := sysconfig.get_path(name))}
