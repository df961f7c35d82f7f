"""The fixture set's manifest: which images there are, and what they must hash to.

A shard is a run of consecutive images. Its hash is the SHA-256 of the concatenated
SHA-256 digests of its images, so that one pass over the pixels both verifies a shard and
gives the content hash of every image in it. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptqbench.errors import UserError
from ptqbench.resources import fixtures_dir

FORMAT = 1
"""Version of the manifest's layout."""

SPLITS = {"train": 0, "calibration": 1, "evaluation": 2}
"""Number of the stream that each split is rendered from."""

Shard = npt.NDArray[np.uint8]
"""Images of one shard, ``N×3×H×W``."""


@dataclass(frozen=True)
class Split:
    """One part of the fixture set.

    Attributes:
        name: ``train``, ``calibration`` or ``evaluation``.
        number: Number of the split's stream.
        images: How many images there are.
        shard_images: Images in a shard; the last shard may have fewer.
        sha256: Hash of every shard, in hexadecimal.
    """

    name: str
    number: int
    images: int
    shard_images: int
    sha256: tuple[str, ...]

    def bounds(self, shard: int) -> tuple[int, int]:
        """Positions of the first image of a shard and of the one after its last."""
        return shard * self.shard_images, min((shard + 1) * self.shard_images, self.images)

    def shards(self, start: int, stop: int) -> range:
        """The shards that hold the images ``start`` … ``stop`` - 1."""
        if not 0 <= start <= stop <= self.images:
            raise ValueError(f"{self.name} has images 0 … {self.images - 1}, not {start} … {stop}.")
        if start == stop:
            return range(0)
        return range(start // self.shard_images, (stop - 1) // self.shard_images + 1)


@dataclass(frozen=True)
class Manifest:
    """What the fixture images must be.

    Attributes:
        seed: Seed of the whole set.
        splits: The splits by name.
    """

    seed: int
    splits: dict[str, Split]


def load_manifest(path: Path | None = None) -> Manifest:
    """Read the manifest that ships with the package.

    Raises:
        UserError: It is missing or damaged.
    """
    path = path or fixtures_dir() / "manifest.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} instead of {FORMAT}")
        splits = {
            name: Split(name, s["number"], s["images"], s["shard_images"], tuple(s["sha256"]))
            for name, s in content["splits"].items()
        }
        return Manifest(content["seed"], splits)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The fixture manifest {path} cannot be read ({error}). Install ptqbench again."
        ) from None


def image_digests(images: Iterable[Shard]) -> tuple[bytes, ...]:
    """SHA-256 digest of each image's pixels."""
    return tuple(hashlib.sha256(image.tobytes()).digest() for image in images)


def shard_hash(digests: Iterable[bytes]) -> str:
    """Hash of a shard from the digests of its images."""
    return hashlib.sha256(b"".join(digests)).hexdigest()
