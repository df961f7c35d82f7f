"""Size: the bytes of an artifact against those of its float32 original."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Size:
    """Bytes of both artifacts, in the same container.

    Attributes:
        float32_bytes: Size of the float32 artifact in bytes.
        int8_bytes: Size of the int8 artifact in bytes.
    """

    float32_bytes: int
    int8_bytes: int

    def __post_init__(self) -> None:
        """Refuse sizes that no artifact has."""
        if self.float32_bytes < 1 or self.int8_bytes < 1:
            raise ValueError(
                "Expected artifacts of at least 1 byte, but got "
                f"{self.float32_bytes} and {self.int8_bytes} bytes."
            )

    @property
    def ratio(self) -> float:
        """How many times as large float32 is as int8 (above 1: int8 is smaller)."""
        return self.float32_bytes / self.int8_bytes


def measure_size(float32: Path | Iterable[Path], int8: Path | Iterable[Path]) -> Size:
    """Measure two artifacts on disk, each a file, a folder of files or several files.

    Raises:
        FileNotFoundError: An artifact is missing.
    """
    return Size(_bytes(float32), _bytes(int8))


def _bytes(path: Path | Iterable[Path]) -> int:
    if not isinstance(path, Path):
        return sum(map(_bytes, path))
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
