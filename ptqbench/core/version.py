"""The version of ptqbench."""

from __future__ import annotations


def package_version() -> str:
    """Return the installed version of ptqbench, ``0+unknown`` if it is not installed."""
    # Imported here because it costs a fifth of what `ptqbench --help` may take.
    from importlib import metadata

    try:
        return metadata.version("ptqbench")
    except metadata.PackageNotFoundError:
        return "0+unknown"
