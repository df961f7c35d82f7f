"""CIFAR-10, read by torchvision's own dataset class."""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from PIL import Image

from ptqbench.data.class_matching import ClassMap, match_classes
from ptqbench.data.fixture.shard_cache import default_cache_dir
from ptqbench.data.image_set import Data
from ptqbench.data.notes import calibration_note
from ptqbench.data.picture_source import PictureSource
from ptqbench.data.split import DataOptions, split
from ptqbench.data.torchvision_datasets import import_datasets, stdout_to_stderr
from ptqbench.errors import UserError
from ptqbench.settings.data_specifier import CIFAR10_ARCHIVE, CIFAR10_FOLDER

Pixels = npt.NDArray[np.uint8]
"""Pictures of one size, ``N×H×W×3``."""


class ArraySource(PictureSource):
    """Small pictures of one size that are in memory already.

    Args:
        place: Name of their set, for messages.
        pixels: ``N×H×W×3`` uint8.
        labels: The label of each picture.
        numbers: The position of each picture in the original set; by default 0 to N - 1.
    """

    def __init__(
        self,
        place: str,
        pixels: Pixels,
        labels: Sequence[int],
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.place = place
        self.labels = tuple(labels)
        self._pixels = pixels
        self._numbers = range(len(labels)) if numbers is None else numbers

    def key(self, position: int) -> str:
        """Position in the original set."""
        return str(self._numbers[position])

    def title(self, position: int) -> str:
        """Set, and position in it."""
        return f"{self.place} {self._numbers[position]}"

    def image(self, position: int) -> Image.Image:
        """Return a picture."""
        return Image.fromarray(self._pixels[position])

    def size(self, position: int) -> int:
        """Return the number of bytes, which is the same for all."""
        return int(self._pixels[position].nbytes)

    def digest(self, position: int) -> str:
        """SHA-256 of the pixels, in hexadecimal."""
        return hashlib.sha256(np.ascontiguousarray(self._pixels[position]).tobytes()).hexdigest()

    def subset(self, positions: Sequence[int]) -> ArraySource:
        """Make a source of the pictures at some positions; they are copied."""
        return ArraySource(
            self.place,
            self._pixels[list(positions)],
            [self.labels[position] for position in positions],
            [self._numbers[position] for position in positions],
        )


def open_cifar10(root: Path | None, options: DataOptions) -> Data:
    """Open CIFAR-10: calibrate with its training images, evaluate on its 10,000 test images.

    Args:
        root: Folder that contains ``cifar-10-batches-py``, or the archive, which is unpacked
            there; None: ``cifar10`` in the cache directory, where it is downloaded to.
        options: How it is opened.

    Raises:
        UserError: It is not there and cannot be downloaded, it is damaged, or its classes are
            not those of the weights.
    """
    name = "cifar10" if root is None else f"cifar10:{root}"
    place = root or default_cache_dir() / "cifar10"
    test = _dataset(place, train=False, download=root is None)
    matched = match_classes(
        test.classes, options.classes, options.num_classes, "CIFAR-10", "classes"
    )
    training = _source("CIFAR-10 training image", _dataset(place, train=True), matched)
    evaluation = _source("CIFAR-10 test image", test, matched)
    notes = [calibration_note("CIFAR-10's training images")]
    return split(name, evaluation, training, matched.names, options, notes)


def _source(place: str, dataset: Any, matched: ClassMap) -> ArraySource:
    labels = [matched.labels[dataset.classes[target]] for target in dataset.targets]
    return ArraySource(place, dataset.data, labels)


def _dataset(root: Path, *, train: bool, download: bool = False) -> Any:
    """Read torchvision's dataset.

    It unpickles, but nothing that a stranger could have written: only files whose MD5 is the
    one that torchvision knows from CIFAR-10's authors. MD5 does not resist collisions between
    two files of one author, but nobody can make a second file with the hash of another's.
    """
    datasets = import_datasets()
    read = functools.partial(datasets.CIFAR10, str(root), train=train)
    archive = root / CIFAR10_ARCHIVE
    try:
        try:
            return read()
        except RuntimeError:
            # An archive that is intact is unpacked, without going to the network for it.
            if not download and not _is_intact(archive, datasets.CIFAR10.tgz_md5):
                raise
            root.mkdir(parents=True, exist_ok=True)
            # The workers of pytest-xdist need the same files at the same time.
            with FileLock(root / f".{CIFAR10_ARCHIVE}.lock"), stdout_to_stderr():
                return read(download=True)
    except (OSError, RuntimeError) as error:
        # Without a network it is OSError (URLError is one); for a damaged file, RuntimeError.
        reason = str(getattr(error, "reason", "") or error).rstrip(".")
        if download:
            raise UserError(
                f"CIFAR-10 is not in {root} and cannot be downloaded: {reason}. Place "
                f"{CIFAR10_ARCHIVE} (from {datasets.CIFAR10.url}) in {root}, or name the folder "
                "that has it with --data cifar10:ROOT."
            ) from None
        raise UserError(
            f"CIFAR-10 in {root} cannot be read: a file is missing or its MD5 is not that of the "
            f"original. Unpack {CIFAR10_ARCHIVE} again, so that {root / CIFAR10_FOLDER} holds "
            "all seven files."
        ) from None


def _is_intact(path: Path, md5: str) -> bool:
    return bool(importlib.import_module("torchvision.datasets.utils").check_integrity(path, md5))
