"""The process behind ``ptqbench`` and ``python -m ptqbench``."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn


def script() -> NoReturn:
    """Run the command line and end the process with its exit code.

    Garbage is collected where it is due, before anything is timed, and not in between:
    tracing and lowering allocate far more than they drop.

    The process ends without taking the interpreter down, which would free a million objects
    of torch one by one: over a second for nothing that anybody sees. Everything that has to
    be closed, temporary folders among it, is closed by then.
    """
    gc.disable()
    from ptqbench.cli import main

    try:
        code = main()
    except SystemExit as leaving:  # argparse's way to end, always with a number
        code = int(leaving.code or 0)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    script()
