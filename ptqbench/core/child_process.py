"""Start another interpreter that imports the same packages as this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ptqbench.core.paths import is_file

_PACKAGE = Path(__file__).resolve().parents[1]
_HAS_GROUPS = hasattr(os, "killpg")


def start_python(
    module: str,
    function: str,
    *,
    stdin: int | IO[Any] | None = subprocess.PIPE,
    stdout: int | IO[Any] | None = subprocess.PIPE,
    stderr: int | IO[Any] | None = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
    new_group: bool = False,
) -> subprocess.Popen[bytes]:
    """Call a function of ptqbench in a new interpreter.

    It imports from where this process does: the same ``sys.path``, with this very ptqbench
    first if another one lies in the way (in the working folder, for instance).

    Args:
        module: Dotted name of the function's module.
        function: Its name; it is called without arguments.
        stdin: As in ``subprocess.Popen``.
        stdout: Likewise.
        stderr: Likewise.
        environment: Variables to set in addition to those of this process.
        new_group: Whether it leads a process group, for `end_group`; Ctrl-C in the terminal
            then does not reach it.

    Raises:
        OSError: The process cannot be started.
    """
    return subprocess.Popen(
        # -P: the working folder is not searched, wherever the parent was started.
        [sys.executable, "-P", "-c", f"from {module} import {function}; {function}()"],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": import_path(), **(environment or {})},
        process_group=0 if new_group and _HAS_GROUPS else None,
    )


def end_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a process that was started with ``new_group``, and all that it has started.

    Args:
        process: Running or ended.
        grace: Seconds in which it may clean up.
    """
    if process.poll() is None:
        _signal_group(process, "SIGTERM")
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    _signal_group(process, "SIGKILL")
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], name: str) -> None:
    if not _HAS_GROUPS:
        process.kill()
        return
    with suppress(ProcessLookupError, PermissionError):  # nobody is left in it
        os.killpg(process.pid, getattr(signal, name))


def import_path() -> str:
    """Return the folders that this process imports from, as the value of ``PYTHONPATH``."""
    # Python ignores entries that are not text, such as a `Path`.
    folders = [folder for folder in sys.path if folder and isinstance(folder, str)]
    root = str(_PACKAGE.parent)
    first = next((f for f in folders if is_file(Path(f, _PACKAGE.name, "__init__.py"))), None)
    if first is None or Path(first).resolve() != Path(root):
        folders.insert(0, root)
    return os.pathsep.join(folders)
