"""Sources of single pictures: everything that a data set can be divided and read by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Self

from PIL import Image

from ptqbench.errors import UserError


class PictureSource(ABC):
    """Pictures with labels, reached by their position.

    Attributes:
        place: Where the pictures are, for messages.
        labels: The label of each picture.
    """

    place: str
    labels: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.labels)

    @abstractmethod
    def key(self, position: int) -> str:
        """Name of a picture that is the same on every machine; pictures are chosen by it."""

    @abstractmethod
    def title(self, position: int) -> str:
        """Name of a picture for messages."""

    @abstractmethod
    def image(self, position: int) -> Image.Image:
        """Decode a picture; called from several threads.

        Raises:
            UserError: It cannot be decoded.
        """

    @abstractmethod
    def size(self, position: int) -> int:
        """Number of bytes of a picture; pictures of equal content have equal sizes."""

    @abstractmethod
    def digest(self, position: int) -> str:
        """SHA-256 of the content of a picture, in hexadecimal."""

    @abstractmethod
    def subset(self, positions: Sequence[int]) -> Self:
        """Make a source of the pictures at some positions, in that order."""

    def keys(self) -> list[str]:
        """Return the keys of all pictures."""
        return [self.key(position) for position in range(len(self))]


def without_copies(source: PictureSource, others: PictureSource) -> list[int]:
    """Find the positions of the pictures whose content is not that of any of the others.

    Only pictures of equal size can be equal, so most are never opened.
    """
    sizes = [source.size(position) for position in range(len(source))]
    other_sizes = [others.size(position) for position in range(len(others))]
    common = set(sizes) & set(other_sizes)
    digests = {_digest(others, i) for i, size in enumerate(other_sizes) if size in common}
    digests.discard(None)
    return [
        i for i, size in enumerate(sizes) if size not in common or _digest(source, i) not in digests
    ]


def count_repeated(source: PictureSource) -> int:
    """Count the pictures that have the content of one before them."""
    sizes = [source.size(position) for position in range(len(source))]
    common = {size for size, times in Counter(sizes).items() if times > 1}
    digests = [_digest(source, i) for i, size in enumerate(sizes) if size in common]
    readable = [digest for digest in digests if digest is not None]
    return len(readable) - len(set(readable))


def _digest(source: PictureSource, position: int) -> str | None:
    """The digest of a picture; None if it cannot be read, which counts when it is decoded."""
    try:
        return source.digest(position)
    except UserError:
        return None
