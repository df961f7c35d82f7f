"""Pictures in files, one at a time."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ptqbench.data.decode import load_image
from ptqbench.data.folder_layout import LabelledFile
from ptqbench.data.picture_source import PictureSource
from ptqbench.errors import UserError

_REMEMBERED = 200_000
"""Hashes of files that a process remembers: several times ImageNet's validation images."""


class FileSource(PictureSource):
    """Pictures in files.

    Args:
        root: The folder that all files are below.
        files: The files with their labels.
    """

    def __init__(self, root: Path, files: Sequence[LabelledFile]) -> None:
        self.place = str(root)
        self.labels = tuple(file.label for file in files)
        self.files = tuple(files)
        self._root = root

    def key(self, position: int) -> str:
        """Path of the file below the folder."""
        return self.files[position].path.relative_to(self._root).as_posix()

    def title(self, position: int) -> str:
        """Path of the file."""
        return str(self.files[position].path)

    def image(self, position: int) -> Image.Image:
        """Decode a file.

        Raises:
            UserError: It cannot be decoded.
        """
        return load_image(self.files[position].path)

    def size(self, position: int) -> int:
        """Size of the file in bytes; -1 if it cannot be read."""
        try:
            return self.files[position].path.stat().st_size
        except OSError:
            return -1

    def digest(self, position: int) -> str:
        """SHA-256 of the bytes of the file, in hexadecimal.

        Raises:
            UserError: The file cannot be read.
        """
        return file_hash(self.files[position].path)

    def subset(self, positions: Sequence[int]) -> FileSource:
        """Make a source of the files at some positions, in that order."""
        return FileSource(self._root, [self.files[position] for position in positions])


def file_hash(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, in hexadecimal; unchanged files are read once.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        status = path.stat()
        return _hash(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"The picture {path} cannot be read: {error.strerror}.") from None


@functools.lru_cache(_REMEMBERED)
def _hash(path: Path, inode: int, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
