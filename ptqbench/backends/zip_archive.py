"""Check that a file is an undamaged zip archive, as torch writes them, without loading it."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from ptqbench.core.paths import exists, is_dir
from ptqbench.errors import UserError

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,  # names that are not UTF-8, offsets that lie outside of the file
    NotImplementedError,  # a compression method that does not exist
    RuntimeError,  # an encryption flag
    OverflowError,
    MemoryError,  # a size of exabytes
)
"""What zipfile raises for archives in which bits have changed."""


def check_zip(
    path: Path,
    error: Callable[[str], UserError],
    no_archive: Callable[[bytes], str],
    other_kind: Callable[[list[str]], str],
) -> None:
    """Read the names in an archive and compute its checksums, which torch does not do.

    It loads a file with changed weights without complaint.

    Args:
        path: The file.
        error: Makes an error of a reason.
        no_archive: Says what a file is that begins with other bytes.
        other_kind: Says what an archive with such names is; empty if it is of the right kind.

    Raises:
        UserError: It is missing, damaged or of another kind.
    """
    if not exists(path):
        raise error("it does not exist. Check the path.")
    if is_dir(path):
        raise error("it is a folder. Name the file in it.")
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if not start.startswith(b"PK\x03\x04"):
            raise error(no_archive(start))
        with zipfile.ZipFile(path) as archive:
            if reason := other_kind(archive.namelist()):
                raise error(reason)
            damaged = archive.testzip()
    except OSError as failure:
        raise error(f"{failure.strerror or failure}.") from None
    except _DAMAGED:
        raise error("it is damaged or not complete. Copy or save it again.") from None
    if damaged is not None:
        raise error(f"the checksum of {damaged} in it is wrong: it is damaged. Copy it again.")
