"""CIFAR-10 and ImageNet, read by torchvision's own dataset classes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ptqbench.core.names import first_few
from ptqbench.data.class_matching import ClassMap, match_classes
from ptqbench.data.fixture.shard_cache import default_cache_dir
from ptqbench.data.folder import CALIBRATION_IMAGES, divide
from ptqbench.data.folder_layout import Layout
from ptqbench.data.image_set import Data
from ptqbench.data.notes import (
    absent_note,
    calibration_note,
    copies_note,
    repeated_note,
    sampled_note,
)
from ptqbench.data.picture_set import Pictures
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.reading import Reading
from ptqbench.data.sampling import balanced
from ptqbench.errors import UserError
from ptqbench.models.import_torchvision import import_torchvision
from ptqbench.settings.data_specifier import CIFAR10_ARCHIVE, CIFAR10_FOLDER

Pixels = npt.NDArray[np.uint8]
"""Pictures of one size, ``N×H×W×3``."""


class ArrayImages(Pictures):
    """Small pictures of one size that are in memory already.

    Args:
        name: The set, for messages.
        pixels: ``N×H×W×3`` uint8.
        labels: The label of each picture.
        classes: Class names.
        preprocessing: What is done to the pictures.
        reading: How many threads prepare them.
    """

    def __init__(
        self,
        name: str,
        pixels: Pixels,
        labels: Sequence[int],
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        reading: Reading | None = None,
    ) -> None:
        super().__init__(name, labels, classes, preprocessing, reading=reading)
        self._pixels = pixels

    def called(self, position: int) -> str:
        """The position of a picture."""
        return f"{self.name} {position}"

    def image(self, position: int) -> Image.Image:
        """The picture."""
        return Image.fromarray(self._pixels[position])

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """SHA-256 of the pixels of each image, in hexadecimal."""
        return (_digest(self._pixels[position]) for position in range(start, stop))


def open_cifar10(
    root: Path | None,
    preprocessing: Preprocessing,
    *,
    classes: tuple[str, ...] | None,
    num_classes: int,
    seed: int = 0,
    calibration_images: int = CALIBRATION_IMAGES,
    reading: Reading | None = None,
) -> Data:
    """Open CIFAR-10: calibrate with its training images, evaluate on its 10,000 test images.

    Args:
        root: Folder that holds ``cifar-10-batches-py``, or the archive, which is unpacked
            there; None: ``cifar10`` in the cache directory, where it is downloaded to.
        preprocessing: What is done to the pictures.
        classes: Class names of the weights in output order, or None: CIFAR-10's own.
        num_classes: Number of outputs of the weights.
        seed: Chooses the calibration images, and the sample.
        calibration_images: How many calibration images to take, at most.
        reading: How many evaluation images to use, and how they are prepared.

    Raises:
        UserError: It is not there and cannot be downloaded, it is damaged, or its classes are
            not those of the weights.
    """
    reading = reading or Reading()
    name = "cifar10" if root is None else f"cifar10:{root}"
    place = root or default_cache_dir() / "cifar10"
    test = _cifar10(place, train=False, download=root is None)
    matched = match_classes(test.classes, classes, num_classes, "CIFAR-10", "classes")
    train = _cifar10(place, train=True, download=False)
    chosen = balanced(train.targets, map(str, range(len(train.targets))), calibration_images, seed)
    # Copied out, so that the fifty thousand others can go.
    calibration = train.data[chosen]
    calibration_labels = [matched.labels[train.classes[train.targets[i]]] for i in chosen]
    del train
    known = {_digest(pixels) for pixels in calibration}
    digests = [_digest(pixels) for pixels in test.data]
    unique = [i for i, digest in enumerate(digests) if digest not in known]
    labels = [matched.labels[test.classes[target]] for target in test.targets]
    limit = len(unique) if reading.limit is None else reading.limit
    turns = balanced([labels[i] for i in unique], map(str, unique), limit, seed)
    used = sorted(unique[i] for i in turns)
    used_labels = [labels[i] for i in used]
    notes = (
        calibration_note("CIFAR-10's training images"),
        *copies_note(len(digests) - len(unique)),
        *sampled_note(len(used), len(unique), seed),
        *repeated_note(len(used) - len({digests[i] for i in used})),
        *absent_note(used_labels, matched.names),
    )

    def images(part: str, pixels: Pixels, labels: Sequence[int]) -> ArrayImages:
        return ArrayImages(f"{name} {part}", pixels, labels, matched.names, preprocessing, reading)

    return Data(
        name,
        images("calibration", calibration, calibration_labels),
        images("evaluation", test.data[used], used_labels),
        notes,
    )


def _cifar10(root: Path, *, train: bool, download: bool) -> Any:
    """Torchvision's dataset.

    It unpickles, but nothing that a stranger could have written: only files whose MD5 is the
    one that torchvision knows from CIFAR-10's authors. MD5 is broken for whoever makes both
    of two files; nobody can make a second file to a given one's.
    """
    datasets = _datasets()
    archive = root / CIFAR10_ARCHIVE
    # An archive that is intact is unpacked, without going to the network for it.
    unpack = archive.is_file() and _is_intact(archive, datasets.CIFAR10.tgz_md5)
    try:
        with _quiet():
            return datasets.CIFAR10(str(root), train=train, download=download or unpack)
    except (OSError, RuntimeError) as error:
        # Whoever has no network gets OSError (URLError is one); a damaged file, RuntimeError.
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


def open_imagenet(
    root: Path,
    preprocessing: Preprocessing,
    *,
    classes: tuple[str, ...] | None,
    num_classes: int,
    seed: int = 0,
    calibration_images: int = CALIBRATION_IMAGES,
    reading: Reading | None = None,
) -> Data:
    """Open ImageNet: evaluate on ``val/``; calibrate with ``train/``, else with a share of it.

    torchvision unpacks the validation images and the devkit, if their archives are all that
    is there. The training archive is left alone: a few hundred images are not worth 138 GB.

    Args:
        root: Folder as torchvision's ``ImageNet`` wants it.
        preprocessing: What is done to the pictures.
        classes: Class names of the weights in output order, or None if they are not known.
        num_classes: Number of outputs of the weights.
        seed: Chooses the calibration images, and the sample.
        calibration_images: How many calibration images to take, at most.
        reading: How many evaluation images to use, and how they are decoded.

    Raises:
        UserError: Something is missing or damaged, or the weights have other classes.
    """
    _datasets()
    imagenet = importlib.import_module("torchvision.datasets.imagenet")
    try:
        with _quiet():
            dataset = imagenet.ImageNet(str(root), split="val")
            words: Mapping[str, Sequence[str]] = imagenet.load_meta_file(str(root))[0]
    except KeyError as error:
        raise UserError(
            f"{root / 'val'} has a folder {error.args[0]}, which is none of the synsets in "
            f"{root / 'meta.bin'}. Move it out of there."
        ) from None
    except Exception as error:  # what a damaged meta.bin raises is anybody's guess
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"ImageNet in {root} cannot be read: {reason}.") from None
    matched = _match_synsets(words, classes, num_classes, root)
    train = root / "train"
    layout = Layout(Path(dataset.split_folder), train if train.is_dir() else None)
    return divide(
        f"imagenet:{root}",
        layout,
        matched,
        preprocessing,
        seed=seed,
        calibration_images=calibration_images,
        reading=reading,
    )


def _match_synsets(
    words: Mapping[str, Sequence[str]], classes: Sequence[str] | None, num_classes: int, root: Path
) -> ClassMap:
    """Synsets in sorted order are the outputs, as torchvision numbers them.

    Raises:
        UserError: The weights have another number of outputs, or other classes there.
    """
    synsets = sorted(words)
    own = tuple(words[synset][0] for synset in synsets)
    if len(synsets) != num_classes:
        raise UserError(
            f"ImageNet in {root} has {len(synsets)} classes, but the weights have {num_classes} "
            "outputs. Pass the images that belong to the weights with --data."
        )
    if classes is not None:
        pairs = zip(classes, synsets, strict=True)
        known = sum(_same(name, synset, words[synset]) for name, synset in pairs)
        # A few of torchvision's names differ from ImageNet's, to tell two cranes apart.
        if known < 0.9 * len(synsets):
            raise UserError(
                f"Only {known} of the weights' {len(classes)} classes ({first_few(classes, 3)}) "
                f"are called as ImageNet's are in the order of its synsets ({first_few(own, 3)}), "
                "so that the outputs mean something else. Pass the images that belong to the "
                "weights with --data."
            )
    labels = {synset: index for index, synset in enumerate(synsets)}
    return ClassMap(tuple(classes) if classes is not None else own, labels)


def _same(name: str, synset: str, words: Sequence[str]) -> bool:
    first = name.split(",")[0].strip().casefold()
    return name.split(" ")[0] == synset or any(first == word.casefold() for word in words)


def _digest(pixels: Pixels) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _datasets() -> Any:
    import_torchvision()
    return importlib.import_module("torchvision.datasets")


def _is_intact(path: Path, md5: str) -> bool:
    return bool(importlib.import_module("torchvision.datasets.utils").check_integrity(path, md5))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torchvision says while it downloads is not part of a result on standard output."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
