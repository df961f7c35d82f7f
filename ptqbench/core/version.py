"""Which ptqbench speaks."""

from __future__ import annotations


def package_version() -> str:
    """The installed version of ptqbench, or ``0+unknown`` where it is not installed."""
    # Imported here because it costs a fifth of what `ptqbench --help` may take.
    from importlib import metadata

    try:
        return metadata.version("ptqbench")
    except metadata.PackageNotFoundError:
        return "0+unknown"
