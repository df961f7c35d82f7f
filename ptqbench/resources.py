"""Where the files that ship with ptqbench lie."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def fixtures_dir() -> Path:
    """The folder of trained weights, manifest and committed references.

    In an installed wheel it lies inside the package, in a checkout beside it.
    """
    packaged = _PACKAGE / "fixtures"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "fixtures"
