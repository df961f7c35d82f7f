"""Preprocessing of pictures before a classifier sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ptqbench.core.names import nearest
from ptqbench.data.picture_modes import upright_rgb
from ptqbench.errors import UserError

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's resampling filters by the names that torchvision gives them."""

_LARGEST = 4096


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, cut out the centre, normalise the channels.

    The same arithmetic as torchvision's ``Resize``, ``CenterCrop``, ``ToTensor`` and
    ``Normalize`` on Pillow images, which is what torchvision's weights were measured with.

    Attributes:
        resize: Length of the shorter side after resizing, in pixels.
        crop: Height and width of the central crop, in pixels; at most ``resize``.
        mean: Mean of each channel (red, green, blue), in fractions of 1.
        std: Standard deviation of each channel, in fractions of 1.
        interpolation: One of ``INTERPOLATIONS``.

    Raises:
        UserError: A value is of the wrong kind or out of range.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            _check_size(name, getattr(self, name))
        if self.crop > self.resize:
            raise UserError(
                f"crop={self.crop} is larger than resize={self.resize}: the picture would get "
                "black borders. Give both, with crop at most resize."
            )
        # Lists come out of JSON; tuples keep the record hashable.
        object.__setattr__(self, "mean", _channels("mean", self.mean))
        object.__setattr__(self, "std", _channels("std", self.std))
        if min(self.mean) < 0 or max(self.mean) > 1:
            raise UserError(
                f"mean={list(self.mean)} is not between 0 and 1. Pixels are fractions of 1: "
                "divide values meant for 0…255 by 255."
            )
        if min(self.std) <= 0:
            raise UserError(f"std={list(self.std)} must be greater than 0 in every channel.")
        if self.interpolation not in list(INTERPOLATIONS):
            hint = nearest(str(self.interpolation), list(INTERPOLATIONS))
            raise UserError(f"Unknown interpolation {self.interpolation!r}. {hint}")

    def pixels(self, image: Image.Image) -> Tensor:
        """Turn a picture of any size and mode upright, into RGB, and to the size of the crop.

        Args:
            image: The picture; it is not changed.

        Returns:
            ``3×crop×crop`` uint8.
        """
        image = self._centre(self._resized(upright_rgb(image)))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Scale to fractions of 1, subtract the mean, divide by the standard deviation.

        Args:
            pixels: ``N×3×H×W`` uint8.

        Returns:
            ``N×3×H×W`` float32, contiguous.
        """
        # NumPy, because waiting for torch's threads costs more than this arithmetic.
        values = pixels.numpy().astype(np.float32, order="C")
        values /= np.float32(255)
        values -= np.asarray(self.mean, np.float32).reshape(3, 1, 1)
        values /= np.asarray(self.std, np.float32).reshape(3, 1, 1)
        return torch.from_numpy(values)

    def _resized(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        short, long = min(width, height), max(width, height)
        if short == self.resize:
            return image
        long = int(self.resize * long / short)  # truncated, as torchvision's Resize does
        size = (self.resize, long) if width <= height else (long, self.resize)
        return image.resize(size, INTERPOLATIONS[self.interpolation])

    def _centre(self, image: Image.Image) -> Image.Image:
        left = round((image.width - self.crop) / 2)  # half to even, as CenterCrop does
        top = round((image.height - self.crop) / 2)
        return image.crop((left, top, left + self.crop, top + self.crop))


def _check_size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise UserError(f"{name}={value!r} must be a whole number of pixels from 1 to {_LARGEST}.")


def _channels(name: str, values: object) -> tuple[float, float, float]:
    if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 3:
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == 3 and all(map(math.isfinite, numbers)):
            return float(numbers[0]), float(numbers[1]), float(numbers[2])
    raise UserError(f"{name}={values!r} must be three numbers: red, green and blue.")
