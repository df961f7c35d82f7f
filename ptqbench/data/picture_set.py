"""Images that are decoded when they are needed, next to inference, and not stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptqbench.core.cpu_count import usable_cores
from ptqbench.core.names import first_few
from ptqbench.data.decode import large_pictures_allowed
from ptqbench.data.picture_source import PictureSource
from ptqbench.data.prefetch import batches_ahead
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.resemblance import is_blank, is_repeated
from ptqbench.errors import UserError
from ptqbench.settings.run_settings import RunSettings


@dataclass(frozen=True)
class _Picture:
    """A decoded picture: its place in the set, ``3×H×W`` uint8, and its label."""

    position: int
    pixels: Tensor
    label: int


@dataclass(frozen=True)
class _Broken:
    """A picture that cannot be decoded, and why."""

    position: int
    reason: str


class Pictures:
    """The pictures of a source as a set of images.

    A picture that cannot be decoded is left out of its batch, and named in ``broken``. Those that
    show nothing of their own are counted in ``alike``.

    Attributes:
        name: Name of the set, for messages.
        source: The pictures.
        classes: Class names; labels index them.
        count: Number of pictures.
        limit: The same number: there is no reserve for top-ups.
        labelled: Whether the pictures have labels; else each label is -1.
        expected_labels: Labels that have pictures in the data, whether in this set or not.

    Args:
        name: Name of the set, for messages.
        source: The pictures.
        classes: Class names.
        preprocessing: Preprocessing of the pictures.
        labelled: Whether they have labels.
        reading: How many threads decode, and how many pictures may be broken.
        expected_labels: Labels that have pictures in the data.
    """

    def __init__(
        self,
        name: str,
        source: PictureSource,
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        *,
        labelled: bool = True,
        reading: RunSettings | None = None,
        expected_labels: frozenset[int] = frozenset(),
    ) -> None:
        reading = reading or RunSettings()
        self.name = name
        self.source = source
        self.classes = classes
        self.labelled = labelled
        self.expected_labels = expected_labels
        self.count = self.limit = len(source)
        self._preprocessing = preprocessing
        self._broken_share = reading.broken_share
        self._workers = reading.workers or usable_cores()
        self._broken: dict[int, str] = {}
        self._alike: set[int] = set()

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the pictures that could not be decoded so far, in the order of the set."""
        return tuple(self.source.title(position) for position in sorted(self._broken))

    @property
    def alike(self) -> int:
        """Number of decoded pictures that are blank, or show what the one before shows."""
        return len(self._alike)

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """Yield the SHA-256 of the content of each picture; one is read at a time."""
        return (self.source.digest(position) for position in range(start, stop))

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Stream normalised images ``N×3×H×W`` float32 and labels ``N`` int64.

        The next batches are decoded while the consumer works on one.

        Raises:
            UserError: More pictures are broken than allowed, or all of them.
        """
        if not 0 <= start <= stop <= self.limit:
            raise ValueError(f"{self.name} has images 0 … {self.limit - 1}, not {start} … {stop}.")
        seen = 0
        positions = range(start, stop)
        last: _Picture | None = None
        with large_pictures_allowed():
            for decoded in batches_ahead(positions, self._decode, batch_size, self._workers):
                self._note([result for result in decoded if isinstance(result, _Broken)])
                whole = [result for result in decoded if not isinstance(result, _Broken)]
                seen += len(whole)
                for picture in whole:
                    self._compare(picture, last)
                    last = picture
                if whole:
                    pixels = torch.stack([picture.pixels for picture in whole])
                    labels = torch.tensor([picture.label for picture in whole])
                    yield self._preprocessing.normalise(pixels), labels
        if stop > start and not seen:
            raise UserError(f"None of the pictures in {self.name} can be decoded. {self._first()}")

    def _decode(self, position: int) -> _Picture | _Broken:
        try:
            pixels = self._preprocessing.pixels(self.source.image(position))
            return _Picture(position, pixels, self.source.labels[position])
        except UserError as error:
            return _Broken(position, str(error))

    def _compare(self, picture: _Picture, last: _Picture | None) -> None:
        pixels = picture.pixels
        if is_blank(pixels) or (last is not None and is_repeated(pixels, last.pixels)):
            self._alike.add(picture.position)

    def _note(self, broken: Sequence[_Broken]) -> None:
        # Here and not while decoding, so that the number of workers changes nothing.
        for picture in broken:
            self._broken[picture.position] = picture.reason
        if len(self._broken) / self.count > self._broken_share:
            raise UserError(
                f"{len(self._broken)} of the {self.count} pictures in {self.name} cannot be "
                f"decoded, more than {self._broken_share * 100:g} %: {first_few(self.broken)}. "
                f"{self._first()} Repair or remove them, or allow more with --broken-share "
                "(setting broken_share)."
            )

    def _first(self) -> str:
        """Say why the first one is broken: an example says more than the number."""
        return self._broken[min(self._broken)]
