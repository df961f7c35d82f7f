"""The process of the ``ptqbench`` command: shortcuts that only it may take, and how it ends.

``import ptqbench`` and ``ptqbench.validate`` run in the user's process and leave its garbage
collector, signals and modules alone.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

_GRACE = 5.0
"""Seconds in which a repeated signal is ignored: cleaning up must not be interrupted."""

_dedicated = False


class Terminated(BaseException):
    """The process was asked to end; temporary files are removed on the way out.

    Attributes:
        exit_code: 128 and the number of the signal, as shells report it.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def dedicate_process() -> None:
    """Dedicate this process to the command.

    Garbage is collected where it is due, before anything is timed, and not in between:
    tracing and lowering allocate far more than they drop.
    """
    global _dedicated
    _dedicated = True
    gc.disable()


def is_dedicated() -> bool:
    """Whether this process belongs to the ``ptqbench`` command alone."""
    return _dedicated


def exempt_imports_from_collection() -> None:
    """Spare garbage collections what has been imported, in the command's process only."""
    if _dedicated:
        gc.freeze()


def raise_on_termination() -> None:
    """Raise `Terminated` in the main thread on SIGTERM and SIGHUP.

    By default both end a process at once, and leave its temporary files and children behind.
    A signal that is ignored, as under ``nohup``, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _Terminate())


class _Terminate:
    def __init__(self) -> None:
        self._first: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # Later ones count again: Python drops what is raised inside a destructor.
        if self._first is None or now - self._first > _GRACE:
            self._first = now
            raise Terminated(number)


def leave(code: int) -> NoReturn:
    """End the process without taking the interpreter down.

    That would free a million objects of torch one by one, which takes over a second. What is
    registered to be done at exit, such as removing temporary folders, is done.

    Args:
        code: Exit code.
    """
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def end_with(run: Callable[[], int]) -> NoReturn:
    """Dedicate this process to a function and end it with the exit code that it returns."""
    dedicate_process()
    try:
        raise_on_termination()
        code = run()
    except SystemExit as leaving:  # how argparse ends, always with a number
        code = int(leaving.code or 0)
    except Terminated as signalled:
        print(f"\nptqbench: terminated by {signalled}.", file=sys.stderr)
        code = signalled.exit_code
    leave(code)
