"""What a set of images, with labels or without, is to everything that measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ptqbench.core.names import first_few, nearest
from ptqbench.errors import UserError

UNLABELLED = -1
"""The label of an image of which nobody says what it shows."""


class ImageSet(Protocol):
    """A sequence of images that streams in batches, all of them with labels or none."""

    @property
    def name(self) -> str:
        """What the images are, for messages and reports."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the model's outputs; a label is an index into them."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; else each label is `UNLABELLED`."""
        ...

    @property
    def count(self) -> int:
        """How many images are used at first."""
        ...

    @property
    def limit(self) -> int:
        """How many there are when more are needed; at least ``count``."""
        ...

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Stream the images ``start`` … ``stop`` - 1; memory does not grow with their number.

        Args:
            start: Position of the first image.
            stop: Position after the last image, at most ``limit``.
            batch_size: Images in a batch; the last batch may be smaller.

        Yields:
            Normalised images ``N×3×H×W`` float32, and labels ``N`` int64.
        """
        ...

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """The SHA-256 of the content of each image, in hexadecimal."""
        ...


@dataclass(frozen=True)
class Data:
    """The images of a case: some to calibrate with, others to evaluate on.

    Attributes:
        name: Where they come from, for messages and reports.
        calibration: Images that set the quantization ranges.
        evaluation: Images that accuracy is measured on.
        notes: Sentences that a reader of the result must know (images left out, …).
    """

    name: str
    calibration: ImageSet
    evaluation: ImageSet
    notes: tuple[str, ...] = ()


def broken_in(images: ImageSet) -> tuple[str, ...]:
    """Names of the images that could not be decoded so far; a set may have none to tell."""
    return tuple(map(str, getattr(images, "broken", ())))


def expected_labels(images: ImageSet) -> frozenset[int]:
    """Labels that have images in the data, evaluated or not; empty if the set does not say."""
    return frozenset(getattr(images, "expected_labels", ()))


def check_disjoint(data: Data) -> None:
    """Check by content hash that no calibration image is evaluated on.

    Only the first ``count`` images of each set are read; that the fixture images beyond
    them are disjoint too was checked when their manifest was made.

    Raises:
        UserError: The two sets share images.
    """
    calibration = set(data.calibration.content_hashes(0, data.calibration.count))
    evaluation = data.evaluation.content_hashes(0, data.evaluation.count)
    shared = sum(digest in calibration for digest in evaluation)
    if shared:
        raise UserError(
            f"{shared} of the {data.evaluation.count} evaluation images of {data.name} are "
            "calibration images too, so the accuracy would be too good. Remove the copies."
        )


def check_classes(data: Data, classes: Sequence[str] | None, num_classes: int) -> None:
    """Check that the labels of the data mean what the outputs of the weights mean.

    Args:
        data: The images.
        classes: Class names of the weights in output order, or None if they are not known.
        num_classes: Number of outputs.

    Raises:
        UserError: Names, order or number differ.
    """
    have = data.evaluation.classes
    if classes is not None and tuple(classes) != have:
        unknown = [name for name in have if name not in classes]
        hint = f" {nearest(unknown[0], list(classes))}" if unknown else " Their order differs."
        raise UserError(
            f"The classes of {data.name} ({first_few(have)}) are not those of the weights "
            f"({first_few(classes)}).{hint} Pass the images that belong to the weights with --data."
        )
    if classes is None and len(have) != num_classes:
        raise UserError(
            f"{data.name} has {len(have)} classes ({first_few(have)}), but the weights have "
            f"{num_classes} outputs. Pass the images that belong to the weights with --data."
        )
