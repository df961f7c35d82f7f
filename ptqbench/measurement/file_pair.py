"""Two int8 files of one model: how often they predict the same class, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.core.progress import Progress, silent
from ptqbench.measurement.intervals import Estimate, proportion
from ptqbench.measurement.sqnr import LogitNoise

if TYPE_CHECKING:
    from ptqbench.data.image_set import ImageSet

IMAGES = 500
"""Images that files are compared on, if there are so many."""
_BATCH = 50


@dataclass(frozen=True)
class FilePair:
    """A file against the one that it would replace.

    Attributes:
        agreed: Images for which both predict the same class.
        noise: The second file's logits against those of the first.
    """

    agreed: int
    noise: LogitNoise

    @classmethod
    def of(cls, first: Tensor, second: Tensor) -> FilePair:
        """Compare a batch of logits, each ``N×K`` float32."""
        same = int((first.argmax(1) == second.argmax(1)).sum())
        return cls(same, LogitNoise.of(first, second))

    def __add__(self, other: FilePair) -> FilePair:
        return FilePair(self.agreed + other.agreed, self.noise + other.noise)

    @property
    def agreement(self) -> Estimate:
        """Share of the images for which both predict the same class, with its interval."""
        return proportion(self.agreed, self.noise.n)


def measure_pairs(
    first: Model, others: Mapping[str, Model], images: ImageSet, progress: Progress = silent
) -> dict[str, FilePair]:
    """Compare files with a first one on the same images.

    Args:
        first: The file that would be replaced, loaded.
        others: Those that would replace it, loaded, by name.
        images: The evaluation images, of which the first `IMAGES` are taken.
        progress: Progress callback; counts images.
    """
    pairs = {name: FilePair(0, LogitNoise()) for name in others}
    count, done = min(IMAGES, images.count), 0
    for pixels, _ in images.batches(0, count, _BATCH):
        with torch.inference_mode():
            expected = first(pixels)
            for name, model in others.items():
                pairs[name] += FilePair.of(expected, model(pixels))
        done += len(pixels)
        progress("compare the files", done, count)
    return pairs
