"""The process behind ``ptqbench`` and ``python -m ptqbench``."""

from __future__ import annotations

from typing import NoReturn

from ptqbench.core.process import end_with


def script() -> NoReturn:
    """Run the command line and end the process with its exit code."""

    def run() -> int:
        from ptqbench.cli import main

        return main()

    end_with(run)


if __name__ == "__main__":
    script()
