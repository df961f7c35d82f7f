"""The process behind ``ptqbench`` and ``python -m ptqbench``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from ptqbench.core.process import Terminated, dedicate_process, leave, raise_on_termination


def script() -> NoReturn:
    """Run the command line and end the process with its exit code."""

    def run() -> int:
        from ptqbench.cli import main

        return main()

    end_with(run)


def end_with(run: Callable[[], int]) -> NoReturn:
    """Take this process for a function alone and end it with the exit code that it returns."""
    dedicate_process()
    try:
        raise_on_termination()
        code = run()
    except SystemExit as leaving:  # argparse's way to end, always with a number
        code = int(leaving.code or 0)
    except Terminated as signalled:
        print(f"\nptqbench: terminated by {signalled}.", file=sys.stderr)
        code = signalled.exit_code
    leave(code)


if __name__ == "__main__":
    script()
