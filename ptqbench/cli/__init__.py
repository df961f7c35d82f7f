"""The command line: ``run``, ``gate``, ``predict``, ``recipe``, ``list``, ``show-config``.

Nothing that takes time or imports torch is imported at the top, so that ``--help`` and every
mistake that can be seen from the arguments alone are answered at once.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

from ptqbench.cli.startup import STARTED  # isort: skip  (first: it reads the clock)
from ptqbench.cli.command import Command
from ptqbench.cli.exit_codes import INTERRUPTED, USAGE_ERROR
from ptqbench.cli.parser import build_parser
from ptqbench.cli.report_output import print_error
from ptqbench.errors import UserError

__all__ = ["STARTED", "main"]

_REFUSALS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),
)
"""Refusals of the operating system that the user can do something about."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ptqbench from the command line.

    Args:
        argv: Arguments; by default those of the process.

    Returns:
        The exit code.
    """
    try:
        args = build_parser().parse_args(argv)
        command: Command = args.command
        return command.run(args)
    except UserError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        where = "" if error.filename is None else f": {error.filename}"
        return _refuse(f"{error.strerror}{where}. Nothing was left half-written there.")
    except KeyboardInterrupt:
        print("\nptqbench: interrupted; no result was written.", file=sys.stderr)
        return INTERRUPTED


def _refuse(sentence: str) -> int:
    print_error(sentence)
    return USAGE_ERROR
