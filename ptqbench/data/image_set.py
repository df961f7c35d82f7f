"""Sets of images, with labels or without, as everything that measures sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from ptqbench.core.names import first_few, nearest
from ptqbench.errors import UserError

UNLABELLED = -1
"""Label of an unlabelled image."""


class ImageSet(Protocol):
    """A sequence of images that streams in batches, all of them with labels or none.

    A set may also have ``broken``, the names of images that could not be decoded, ``alike``, how
    many of those decoded show nothing of their own, and ``expected_labels``, the labels that have
    images in the data, evaluated or not.
    """

    @property
    def name(self) -> str:
        """Name of the set, for messages and reports."""
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
        """Number of images used at first."""
        ...

    @property
    def limit(self) -> int:
        """Number of images available if more are needed; at least ``count``."""
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
        name: Name of the data, for messages and reports.
        calibration: Images that set the quantization ranges.
        evaluation: Images that accuracy is measured on.
        notes: Sentences that a reader of the result must know (images left out, …).
    """

    name: str
    calibration: ImageSet
    evaluation: ImageSet
    notes: tuple[str, ...] = ()

    @cached_property
    def shared_images(self) -> int:
        """Evaluation images that are calibration images too, by content; computed once.

        Only the first ``count`` images of each set are read; that the fixture images beyond
        them are disjoint too was checked when their manifest was written.
        """
        calibration = set(self.calibration.content_hashes(0, self.calibration.count))
        evaluation = self.evaluation.content_hashes(0, self.evaluation.count)
        return sum(digest in calibration for digest in evaluation)


def broken_in(images: ImageSet) -> tuple[str, ...]:
    """Return the names of the images that could not be decoded so far."""
    return tuple(map(str, getattr(images, "broken", ())))


def alike_in(images: ImageSet) -> int:
    """Return how many images decoded so far are blank or show what the one before shows."""
    return int(getattr(images, "alike", 0))


def expected_labels(images: ImageSet) -> frozenset[int]:
    """Return the labels that have images in the data; empty if the set does not say."""
    return frozenset(getattr(images, "expected_labels", ()))


def example_image(images: ImageSet, most: int = 100) -> Tensor:
    """Return the first image that can be decoded, ``1×C×H×W`` float32.

    Args:
        images: A set whose first images may be broken.
        most: How many images to try.

    Raises:
        UserError: There are no images, or none of the first ones can be decoded.
    """
    for pixels, _ in images.batches(0, min(most, images.count), 1):
        return pixels[:1]
    raise UserError(f"There are no images in {images.name}. Add some.")


def proven_disjoint(data: Data) -> Data:
    """Record that whoever divided the images has compared their contents already.

    A copy with other images (``dataclasses.replace``) does not inherit the record.
    """
    vars(data)["shared_images"] = 0
    return data


def check_disjoint(data: Data) -> None:
    """Check that no calibration image is evaluated on.

    Contents are compared once per `Data`, and not at all if they were when it was divided.

    Raises:
        UserError: The two sets share images.
    """
    if data.shared_images:
        raise UserError(
            f"{data.shared_images} of the {data.evaluation.count} evaluation images of "
            f"{data.name} are calibration images too, so the accuracy would be too good. Remove "
            "the copies."
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
