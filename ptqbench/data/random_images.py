"""Random images, for measuring how fast a model is without data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ptqbench.data.image_set import UNLABELLED


@dataclass(frozen=True)
class RandomImages:
    """Normally distributed images without labels.

    Attributes:
        side: Height and width in pixels.
        seed: Seed of the pixels.
    """

    side: int
    seed: int
    name: str = "random images"
    classes: tuple[str, ...] = ()
    labelled: bool = False
    count: int = 16
    limit: int = 16

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Stream pixels ``N×3×H×W`` float32, and `UNLABELLED` for each."""
        for first in range(start, stop, batch_size):
            positions = range(first, min(first + batch_size, stop))
            pixels = torch.stack([self._image(position) for position in positions])
            yield pixels, torch.full((len(positions),), UNLABELLED)

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """Hash seed and position, which are all that an image is made of."""
        for index in range(start, stop):
            yield hashlib.sha256(f"{self.seed} {index}".encode()).hexdigest()

    def _image(self, position: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 10_007 + position)
        return torch.randn(3, self.side, self.side, generator=generator)
