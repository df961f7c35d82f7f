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

__all__ = ["STARTED", "main", "sentence_of"]

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
        args.argv = list(sys.argv[1:] if argv is None else argv)
        command: Command = args.command
        return command.run(args)
    except (UserError, OSError) as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        return _refuse(sentence)
    except KeyboardInterrupt:
        print("\nptqbench: interrupted; no report was written.", file=sys.stderr)
        return INTERRUPTED


def sentence_of(error: Exception) -> str | None:
    """Return what to tell the user about an error; None if it is a defect of ptqbench."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        where = "" if error.filename is None else f": {error.filename}"
        return f"{error.strerror}{where}. Nothing was left half-written there."
    return None


def _refuse(sentence: str) -> int:
    print_error(sentence)
    return USAGE_ERROR
