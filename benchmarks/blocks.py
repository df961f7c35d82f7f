"""Blocks of a Markdown file that a command writes, between two HTML comments.

A block begins with ``<!-- begin NAME: … -->`` (what follows the colon is for the reader)
and ends with ``<!-- end NAME -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ptqbench.core.atomic import atomic_path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"


def replace_block(text: str, name: str, body: str) -> str:
    """The text with the body of one block exchanged; everything else stays as it is."""
    pattern = rf"(<!-- begin {re.escape(name)}\b[^\n]*-->\n).*?(<!-- end {re.escape(name)} -->)"
    count = len(re.findall(pattern, text, flags=re.DOTALL))
    if count != 1:
        raise ValueError(f"Expected one block {name!r}, but found {count}.")
    return re.sub(
        pattern,
        lambda match: f"{match[1]}\n{body.strip()}\n\n{match[2]}",
        text,
        flags=re.DOTALL,
    )


def rewrite(path: Path, name: str, body: str) -> None:
    """Exchange the body of one block of a file."""
    text = replace_block(path.read_text("utf-8"), name, body)
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")
    print(f"{path.relative_to(ROOT)}: block {name} written", file=sys.stderr)


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A Markdown table; the columns whose numbers are in ``right`` are aligned right."""
    aligned = frozenset(right)
    rule = ["---:" if index in aligned else "---" for index in range(len(heading))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows))
