"""From rich's renderables to text that any terminal, pipe or file can take."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from typing import TextIO

from rich.console import Console, RenderableType

from ptqbench.core.names import printable

PIPE_WIDTH = 100
"""Columns where nobody says how wide the reader's window is: CI logs and files."""
WIDEST = 140
"""Lines longer than this are harder to read, however wide the window is."""

_ASCII = str.maketrans("→×·–—−…✓✗○─≥", ">x|---~+xo->")
"""One character for one character, so that columns stay where they are."""


def render(item: RenderableType, width: int = PIPE_WIDTH, color: bool = False) -> str:
    """Lay ``item`` out.

    Args:
        item: What rich can render.
        width: Columns.
        color: Whether to use the terminal's colours (``NO_COLOR`` is obeyed).

    Returns:
        Lines without trailing blanks, each ended by a newline.
    """
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        color_system="auto" if color else None,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(item)
    return "".join(line.rstrip() + "\n" for line in buffer.getvalue().splitlines())


def encodable(text: str, encoding: str | None) -> str:
    """The text with plain stand-ins for what ``encoding`` cannot say."""
    encoding = encoding or "ascii"
    text = printable(text)
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        text = text.translate(_ASCII)
        try:
            return text.encode(encoding, "replace").decode(encoding)
        except LookupError:
            return text.encode("ascii", "replace").decode("ascii")
    return text


def width_of(stream: TextIO) -> int:
    """Columns to use on ``stream``: the window's, or `PIPE_WIDTH` where there is none.

    ``COLUMNS`` in the environment decides where it is set.
    """
    if os.environ.get("COLUMNS", "").isdigit() or stream.isatty():
        return max(20, min(WIDEST, shutil.get_terminal_size((PIPE_WIDTH, 24)).columns))
    return PIPE_WIDTH


def write(text: str, stream: TextIO) -> None:
    """Write ``text`` to ``stream``, whatever its encoding; a reader who left is no error."""
    try:
        stream.write(encodable(text, stream.encoding))
        stream.flush()
    except BrokenPipeError:
        # The verdict stands although `head` has seen enough of it. What is still
        # buffered must not raise once more when the interpreter shuts down.
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def show(item: RenderableType, stream: TextIO | None = None) -> None:
    """Print ``item`` on ``stream`` (standard output), coloured if it is a terminal."""
    stream = stream or sys.stdout
    write(render(item, width_of(stream), stream.isatty()), stream)
