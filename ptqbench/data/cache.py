"""Shards of rendered images on disk: made once, verified, replaced whole. Needs no torch."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

import numpy as np
import PIL

from ptqbench.data.manifest import Manifest, Shard, Split, image_digests, shard_hash
from ptqbench.data.rendering import Renderer, rendering
from ptqbench.data.scenes import SIZE
from ptqbench.errors import UserError
from ptqbench.files import atomic_path
from ptqbench.progress import Progress, silent

_HEADER = 128
"""Bytes before the pixels in a ``.npy`` file of such a small shape."""

_ABANDONED = 3600
"""Age in s after which a temporary file belongs to a run that was killed."""


def default_cache_dir() -> Path:
    """``$PTQBENCH_CACHE``, else ``ptqbench`` in the user's cache directory."""
    if own := os.environ.get("PTQBENCH_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "ptqbench"
    return Path("~/.cache/ptqbench").expanduser()


class ShardCache:
    """The shards of one split in a directory.

    Args:
        manifest: What the images must be.
        split: Name of the split.
        directory: The cache directory; made when the first shard is written.
        progress: Told while images are rendered.
    """

    def __init__(
        self, manifest: Manifest, split: str, directory: Path, progress: Progress = silent
    ) -> None:
        self.split: Split = manifest.splits[split]
        self._seed = manifest.seed
        self._directory = directory / "fixture"
        self._progress = progress
        self._digests: dict[int, tuple[bytes, ...]] = {}

    def prepare(self, start: int, stop: int) -> None:
        """Render those shards of the images ``start`` … ``stop`` - 1 that are not there.

        Raises:
            UserError: The directory cannot be written to, the disk is full, or the images
                come out otherwise than the manifest says.
        """
        missing = [k for k in self.split.shards(start, stop) if not self._present(k)]
        if missing:
            self._generate(missing)

    def load(self, shard: int) -> Shard:
        """The images of a shard, verified the first time; rendered again if damaged.

        Raises:
            UserError: See :meth:`prepare`.
        """
        pixels = self._read(shard)
        if pixels is None:
            self._generate([shard])
            pixels = self._read(shard)
        if pixels is None:
            raise UserError(
                f"{self._path(shard)} cannot be read back. Check the disk, or choose another "
                "cache directory with --cache-dir or PTQBENCH_CACHE."
            )
        return pixels

    def digests(self, shard: int) -> tuple[bytes, ...]:
        """SHA-256 digest of every image of a shard."""
        if shard not in self._digests:
            self.load(shard)
        return self._digests[shard]

    def _path(self, shard: int) -> Path:
        # The hash in the name keeps versions of the set apart that share a directory.
        name = f"{self.split.name}-{shard:03d}-{self.split.sha256[shard][:12]}.npy"
        return self._directory / name

    def _present(self, shard: int) -> bool:
        start, stop = self.split.bounds(shard)
        try:
            size = self._path(shard).stat().st_size
        except OSError:
            return False
        return size == _HEADER + (stop - start) * 3 * SIZE * SIZE

    def _read(self, shard: int) -> Shard | None:
        start, stop = self.split.bounds(shard)
        try:
            pixels: Shard = np.load(self._path(shard), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if pixels.shape != (stop - start, 3, SIZE, SIZE) or pixels.dtype != np.uint8:
            return None
        if shard not in self._digests:
            digests = image_digests(pixels)
            if shard_hash(digests) != self.split.sha256[shard]:
                return None
            self._digests[shard] = digests
        return pixels

    def _generate(self, shards: list[int]) -> None:
        bounds = [self.split.bounds(shard) for shard in shards]
        total = sum(stop - start for start, stop in bounds)
        done = 0
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self._directory)
            with rendering(total) as renderer:
                for shard in shards:
                    done = self._generate_one(shard, renderer, done, total)
        except OSError as error:
            raise UserError(_explained(error, self._directory)) from None

    def _generate_one(self, shard: int, renderer: Renderer, done: int, total: int) -> int:
        start, stop = self.split.bounds(shard)
        description = f"rendering {self.split.name} images"
        self._progress(description, done, total)
        pieces = []
        for piece in renderer.chunks(self._seed, self.split.number, start, stop):
            pieces.append(piece)
            done += len(piece)
            self._progress(description, done, total)
        pixels = np.concatenate(pieces)
        if shard_hash(image_digests(pixels)) != self.split.sha256[shard]:
            raise UserError(
                f"The {self.split.name} images {start} to {stop - 1} come out otherwise here "
                f"than when the fixture set was made: Pillow {PIL.__version__} or NumPy "
                f"{np.__version__} renders otherwise. Install the versions that ptqbench is "
                "tested with (constraints.txt)."
            )
        with atomic_path(self._path(shard)) as temporary:
            np.save(temporary, pixels)
        return done


def _remove_abandoned(directory: Path) -> None:
    for path in directory.glob(".*.npy"):
        with contextlib.suppress(OSError):  # another run may remove it at the same time
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


def _explained(error: OSError, directory: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        problem, remedy = "There is no room for the fixture images in", "Free about 150 MB there"
    else:
        problem, remedy = "The fixture images cannot be written to", "Make it writable"
    return (
        f"{problem} {directory} ({error.strerror or error}). {remedy}, or choose another cache "
        "directory with --cache-dir or PTQBENCH_CACHE."
    )
