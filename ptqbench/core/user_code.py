"""Where in a user's code an error comes from; no torch."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def failure(error: BaseException) -> str:
    """What went wrong and where, ``NameError: … at nets.py, line 12: model = Nett()``.

    Args:
        error: As raised, with its traceback.
    """
    text = " ".join(str(error).split()).rstrip(".")
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} at {_at(error.filename, error.lineno)}"
    frames = traceback.extract_tb(error.__traceback__)
    known = [f for f in frames if Path(f.filename).is_file() and not _within(f.filename, _PACKAGE)]
    own = [frame for frame in known if not any(_within(frame.filename, d) for d in _libraries())]
    frame = next(iter([*own[-1:], *known[-1:]]), None)
    return reason if frame is None else f"{reason} at {_at(frame.filename, frame.lineno)}"


def _at(file: str, line: int | None) -> str:
    code = linecache.getline(file, line).strip() if line is not None else ""
    return f"{file}, line {line}" + (f": {code}" if code else "")


def _libraries() -> Iterable[Path]:
    """Folders of code that a user did not write."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return {Path(path) for name in names if (path := sysconfig.get_path(name))}


def _within(file: str, folder: Path) -> bool:
    return Path(file).is_relative_to(folder)
