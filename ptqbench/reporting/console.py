"""Turn rich's renderables into text for any terminal, pipe or file."""

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
"""Columns if the width of the reader's window is unknown: CI logs and files."""
WIDEST = 140
"""Lines longer than this are harder to read, however wide the window is."""

_ASCII = str.maketrans("→×·–—−…✓✗○─≥", ">x|---~+xo->")
"""Each character is replaced by one character, so that columns stay aligned."""


def render(item: RenderableType, width: int = PIPE_WIDTH, color: bool = False) -> str:
    """Lay ``item`` out.

    Args:
        item: The renderable.
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
    """Return the text with plain substitutes for characters outside ``encoding``."""
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
    """Return the columns to use on ``stream``: the window's, or `PIPE_WIDTH` without one.

    ``COLUMNS`` in the environment takes precedence.
    """
    if os.environ.get("COLUMNS", "").isdigit() or stream.isatty():
        return max(20, min(WIDEST, shutil.get_terminal_size((PIPE_WIDTH, 24)).columns))
    return PIPE_WIDTH


def write(text: str, stream: TextIO) -> None:
    """Write ``text`` to ``stream`` in any encoding; a closed pipe is not an error."""
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
