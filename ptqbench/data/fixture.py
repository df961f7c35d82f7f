"""The rendered fixture set as images to calibrate with and to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ptqbench.data.cache import ShardCache, default_cache_dir
from ptqbench.data.manifest import Manifest, Shard, load_manifest
from ptqbench.data.scenes import SIZE
from ptqbench.data.sets import Data
from ptqbench.data.shapes import CLASSES
from ptqbench.models.preprocessing import Preprocessing
from ptqbench.progress import Progress, silent

EVALUATION_IMAGES = 2_000
"""Images that a verdict starts from; the rest of the split is for top-ups."""


class FixtureImages:
    """Images of one split, read shard by shard from the cache, rendered when first needed.

    Attributes:
        name: Name of the set and the split.
        classes: The sixteen objects.
        labelled: True.
        count: Images used at first.
        limit: Images that a top-up may reach.

    Args:
        cache: Where the shards come from.
        preprocessing: What is done to the images.
        count: Images used at first.
        limit: Images that a top-up may reach; by default all.
    """

    def __init__(
        self,
        cache: ShardCache,
        preprocessing: Preprocessing,
        count: int,
        limit: int | None = None,
    ) -> None:
        self.name = f"fixture {cache.split.name}"
        self.classes = CLASSES
        self.labelled = True
        self.limit = min(limit or cache.split.images, cache.split.images)
        self.count = min(count, self.limit)
        self._cache = cache
        self._preprocessing = preprocessing
        self._last: tuple[int, Shard] | None = None

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Stream normalised images ``N×3×H×W`` float32 and labels ``N`` int64.

        Raises:
            UserError: Images have to be rendered and cannot be kept, or differ.
        """
        if not 0 <= start <= stop <= self.limit:
            raise ValueError(f"{self.name} has images 0 … {self.limit - 1}, not {start} … {stop}.")
        self._cache.prepare(start, stop)
        for first in range(start, stop, batch_size):
            last = min(first + batch_size, stop)
            labels = torch.arange(first, last) % len(self.classes)
            yield self._preprocessing.normalise(self._prepared(first, last)), labels

    def pixels(self, start: int, stop: int) -> Tensor:
        """The images as they were rendered, ``N×3×H×W`` uint8."""
        self._cache.prepare(start, stop)
        pieces = []
        for shard in self._cache.split.shards(start, stop):
            offset = self._cache.split.bounds(shard)[0]
            pieces.append(self._shard(shard)[max(start - offset, 0) : stop - offset])
        return torch.from_numpy(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """SHA-256 of the rendered pixels of each image, in hexadecimal."""
        self._cache.prepare(start, stop)
        for shard in self._cache.split.shards(start, stop):
            offset = self._cache.split.bounds(shard)[0]
            digests = self._cache.digests(shard)[max(start - offset, 0) : stop - offset]
            yield from (digest.hex() for digest in digests)

    def _prepared(self, start: int, stop: int) -> Tensor:
        pixels = self.pixels(start, stop)
        if self._preprocessing.resize == self._preprocessing.crop == SIZE:
            return pixels
        pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in pixels]
        return torch.stack([self._preprocessing.pixels(picture) for picture in pictures])

    def _shard(self, shard: int) -> Shard:
        # Batches of one shard follow each other, so the last one is all that is worth keeping.
        if self._last is None or self._last[0] != shard:
            self._last = (shard, self._cache.load(shard))
        return self._last[1]


def open_fixture(
    preprocessing: Preprocessing,
    *,
    cache_dir: Path | None = None,
    progress: Progress = silent,
    evaluation_images: int = EVALUATION_IMAGES,
    limit: int | None = None,
    manifest: Manifest | None = None,
) -> Data:
    """Open the fixture set, rendering what the cache lacks.

    Args:
        preprocessing: What is done to the images.
        cache_dir: Where they are kept; by default ``$PTQBENCH_CACHE`` or ``ptqbench`` in the
            user's cache directory.
        progress: Told while images are rendered.
        evaluation_images: Images that are evaluated at first.
        limit: Evaluation images that are used at most, top-ups included. The set's labels take
            turns, and its scenes are drawn by chance, so that its first images are a sample
            as good as any.
        manifest: What the images must be; by default what ships with the package.

    Returns:
        All calibration images, and the evaluation images with their reserve for top-ups.

    Raises:
        UserError: The cache cannot be written to, or the images come out otherwise here.
    """
    manifest = manifest or load_manifest()
    directory = cache_dir or default_cache_dir()
    sets = {}
    for split, count, most in (
        ("calibration", manifest.splits["calibration"].images, None),
        ("evaluation", evaluation_images, limit),
    ):
        cache = ShardCache(manifest, split, directory, progress)
        sets[split] = FixtureImages(cache, preprocessing, count, most)
        cache.prepare(0, sets[split].count)
    notes = _limited(sets["evaluation"].limit, manifest.splits["evaluation"].images)
    return Data("fixture", sets["calibration"], sets["evaluation"], notes)


def _limited(used: int, there: int) -> tuple[str, ...]:
    if used == there:
        return ()
    return (f"At most {used:,} of the {there:,} fixture images are evaluated.",)
