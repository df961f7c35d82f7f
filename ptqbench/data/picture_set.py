"""Images that are decoded when they are needed, beside inference, and never kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ptqbench.core.cpu_count import usable_cores
from ptqbench.core.names import first_few
from ptqbench.data.prefetch import batches_ahead
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.reading import Reading
from ptqbench.errors import UserError


@dataclass(frozen=True)
class _Broken:
    """A picture that cannot be decoded, and why."""

    position: int
    reason: str


class Pictures(ABC):
    """Labelled pictures; a subclass says where they come from.

    A picture that cannot be decoded is left out of its batch, and named in ``broken``.

    Attributes:
        name: What they are, for messages.
        classes: Class names; labels index them.
        count: Pictures there are.
        limit: The same: there is no reserve for top-ups.
        labelled: Whether the pictures have labels; else each label is -1.

    Args:
        name: What they are, for messages.
        labels: The label of each picture.
        classes: Class names.
        preprocessing: What is done to the pictures.
        labelled: Whether they have labels.
        reading: How many threads decode, and what may be broken.
    """

    def __init__(
        self,
        name: str,
        labels: Sequence[int],
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        labelled: bool = True,
        reading: Reading | None = None,
    ) -> None:
        reading = reading or Reading()
        self.name = name
        self.classes = classes
        self.labelled = labelled
        self.count = len(labels)
        self.limit = len(labels)
        self._labels = tuple(labels)
        self._preprocessing = preprocessing
        self._broken_share = reading.broken_share
        self._workers = reading.workers or usable_cores()
        self._broken: dict[int, str] = {}

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the pictures that could not be decoded so far, in the order of the set."""
        return tuple(self.called(position) for position in sorted(self._broken))

    @abstractmethod
    def called(self, position: int) -> str:
        """The name of a picture, for messages."""

    @abstractmethod
    def image(self, position: int) -> Image.Image:
        """The decoded picture; called from several threads.

        Raises:
            UserError: It cannot be decoded.
        """

    @abstractmethod
    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """The SHA-256 of the content of each image, in hexadecimal."""

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Stream normalised images ``N×3×H×W`` float32 and labels ``N`` int64.

        The next batches are decoded while the consumer works on one.

        Raises:
            UserError: More pictures are broken than may be, or all of them.
        """
        if not 0 <= start <= stop <= self.limit:
            raise ValueError(f"{self.name} has images 0 … {self.limit - 1}, not {start} … {stop}.")
        seen = 0
        positions = range(start, stop)
        for decoded in batches_ahead(positions, self._decode, batch_size, self._workers):
            self._note([found for found in decoded if isinstance(found, _Broken)])
            kept = [found for found in decoded if not isinstance(found, _Broken)]
            seen += len(kept)
            if kept:
                pixels = torch.stack([image for image, _ in kept])
                labels = torch.tensor([label for _, label in kept])
                yield self._preprocessing.normalise(pixels), labels
        if stop > start and not seen:
            raise UserError(f"None of the pictures in {self.name} can be decoded. {self._first()}")

    def _decode(self, position: int) -> tuple[Tensor, int] | _Broken:
        try:
            return self._preprocessing.pixels(self.image(position)), self._labels[position]
        except UserError as error:
            return _Broken(position, str(error))

    def _note(self, broken: Sequence[_Broken]) -> None:
        # Here and not where it is found, so that the number of workers changes nothing.
        for found in broken:
            self._broken[found.position] = found.reason
        if len(self._broken) > self._broken_share * self.count:
            raise UserError(
                f"{len(self._broken)} of the {self.count} pictures in {self.name} cannot be "
                f"decoded, more than {self._broken_share * 100:g} %: {first_few(self.broken)}. "
                f"{self._first()} Repair or remove them, or allow more with --broken-share "
                "(setting broken_share)."
            )

    def _first(self) -> str:
        """Why the first one is broken: an example says more than the number."""
        return self._broken[min(self._broken)]
