"""Decode one picture."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ptqbench.core.paths import is_dir
from ptqbench.data.picture_modes import upright_rgb
from ptqbench.errors import UserError


def load_image(path: Path) -> Image.Image:
    """Decode a picture: upright, in RGB.

    Greyscale, palette, CMYK, 16-bit and float pictures are converted, and transparency is laid
    over white; of an animation the first frame counts.

    Raises:
        UserError: There is no such file, or it cannot be decoded.
    """
    if is_dir(path):
        raise UserError(f"{path} is a folder. Pass the path of one picture.")
    try:
        # From the open file: by its path, Pillow 13 maps uncompressed TIFFs that have to be turned
        # into memory with height and width exchanged.
        with large_pictures_allowed(), path.open("rb") as file, Image.open(file) as image:
            return upright_rgb(image).copy()
    except FileNotFoundError:
        raise UserError(f"There is no picture {path}.") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not a picture in a format that can be read.") from None
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"The picture {path} cannot be read: {reason.rstrip('.')}.") from None


class _WarningFilter:
    """A filter of Python's warnings that is there while anybody needs it.

    ``warnings.catch_warnings`` restores the filters as they were when it began, so that threads
    or generators that overlap restore each other's. This adds one entry and takes out that entry.
    """

    def __init__(self, category: type[Warning]) -> None:
        self._category = category
        self._lock = threading.Lock()
        self._users = 0
        self._entry: tuple[Any, ...] = ()
        self._filters: list[Any] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._entry = ("ignore", None, self._category, None, 0)
                self._filters = warnings.filters  # type: ignore[assignment]
                self._filters.insert(0, self._entry)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._remove()

    def _remove(self) -> None:
        # A `catch_warnings` that began in between works on a copy, and puts the original back.
        for filters in (self._filters, warnings.filters):
            for index, entry in enumerate(filters):
                if entry is self._entry:
                    del filters[index]  # type: ignore[union-attr]
                    break


large_pictures_allowed = _WarningFilter(Image.DecompressionBombWarning)
"""Context in which Pillow does not warn of large pictures: they are decoded or refused."""
