"""Files appear whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the body succeeds.

    The temporary file keeps the suffix, and is removed on any failure, Ctrl-C included.

    Args:
        path: Where the file shall end up; its folder must exist.

    Yields:
        The path to write to.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; a shared cache or report should follow the umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def file_name(name: str) -> str:
    """A model's name as part of a file's name: ``my.nets:net`` becomes ``my.nets_net``.

    Args:
        name: Any text.
    """
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".")
