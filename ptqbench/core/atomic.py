"""Write files whole or not at all, and never replace what is not a regular file."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ptqbench.errors import UserError

_MAX_LINKS = 40
"""Symbolic links that are followed, as many as Linux follows."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DESCRIPTOR = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd/(\d+)")


@dataclass(frozen=True)
class _Destination:
    """Where links lead.

    Attributes:
        path: The file itself.
        in_place: Whether it is written to as it is: a device, a FIFO, an open descriptor.
        descriptor: Number of the open descriptor of this process that it stands for.
    """

    path: Path
    in_place: bool
    descriptor: int | None = None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of ``path`` when the body succeeds.

    A symbolic link stays, and the file that it points to is replaced. What is not a regular
    file (``/dev/null``, ``/dev/stdout``, a FIFO) receives the content and stays what it is.
    The temporary file keeps the suffix, and is removed on any failure, Ctrl-C included.

    Args:
        path: Where the file shall end up; its folder must exist.

    Yields:
        The path to write to.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    destination = _destination(path)
    temporary = _temporary_file(destination)
    try:
        yield temporary
        if destination.in_place:
            _copy_into(temporary, destination)
            temporary.unlink()
            return
        # mkstemp makes files private; a shared cache or report should follow the umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        try:
            temporary.replace(destination.path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _copy_into(temporary, destination)  # a mounted file cannot be replaced
            temporary.unlink()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(text: str, path: Path) -> None:
    """Write a text file (UTF-8) whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(_refusal(path, error)) from error


def check_writable(path: Path) -> None:
    """Check that `write_text` can write to ``path``, before an hour of measuring.

    Raises:
        UserError: It is a folder, its folder is missing, or writing is not permitted.
    """
    try:
        destination = _destination(path)
        if destination.descriptor is not None:
            if not _is_writable_descriptor(destination.descriptor):
                raise OSError(errno.EBADF, "it is not open for writing")
        elif destination.in_place:
            if not os.access(destination.path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            _temporary_file(destination).unlink()
    except (OSError, ValueError) as error:
        raise UserError(_refusal(path, error)) from error


def _destination(path: Path) -> _Destination:
    """Follow links one by one: those in /proc stand for open files, not for names.

    Raises:
        OSError: It is a folder, or links lead in a circle.
    """
    here = path
    for _ in range(_MAX_LINKS):
        here = Path(os.path.realpath(here.parent)) / here.name
        if match := _DESCRIPTOR.fullmatch(str(here)):
            if not here.exists():
                raise OSError(errno.EBADF, "it is not an open file")
            is_ours = int(match[1]) == os.getpid()
            return _Destination(here, True, int(match[2]) if is_ours else None)
        if not here.is_symlink():
            break
        here = here.parent / os.readlink(here)
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    try:
        mode = os.stat(here).st_mode
    except FileNotFoundError:
        return _Destination(here, False)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return _Destination(here, not stat.S_ISREG(mode))


def _temporary_file(destination: _Destination) -> Path:
    """Make an empty file next to a regular file, in the temporary folder for anything else."""
    path = destination.path
    handle, name = tempfile.mkstemp(
        dir=None if destination.in_place else path.parent,
        prefix=f".{path.stem[:40]}-",  # a long name must leave room for the random part
        suffix=path.suffix,
    )
    os.close(handle)
    return Path(name)


def _copy_into(source: Path, destination: _Destination) -> None:
    with source.open("rb") as content, _opened(destination) as target:
        shutil.copyfileobj(content, target)


def _opened(destination: _Destination) -> BinaryIO:
    if destination.descriptor is None:
        return destination.path.open("wb")
    # A second opening would start at the beginning and overwrite what is there.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return os.fdopen(os.dup(destination.descriptor), "wb")


def _is_writable_descriptor(number: int) -> bool:
    import fcntl

    return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def _refusal(path: Path, error: Exception) -> str:
    start = f"Cannot write {path}"
    if isinstance(error, IsADirectoryError):
        return f"{start}: it is a folder. Name a file in it."
    if isinstance(error, FileNotFoundError):
        folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
        return f"{start}: there is no folder {folder}. Create it, or name another file."
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    if isinstance(error, PermissionError):
        return f"{start}: {reason}. Name a file that you may write to."
    room = "Make room, or name" if getattr(error, "errno", 0) in _FULL else "Name"
    return f"{start}: {reason}. No partial file was left. {room} another file."
