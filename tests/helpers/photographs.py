"""Photographs without labels: crops of the pictures inside scikit-image's wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"),
    *("motorcycle_left.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg"),
)
SIDE = 256
"""Of a crop in pixels."""


def write_crops(folder: Path, count: int, seed: int = 0) -> None:
    """Write ``count`` square crops, the pictures in turn, half to all of each one's shorter side.

    Args:
        folder: It must exist.
        count: How many.
        seed: Seed of the places.
    """
    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None
    data = Path(spec.origin).parent / "data"
    pictures = [Image.open(data / name).convert("RGB") for name in PICTURES]
    random = np.random.default_rng(seed)
    for index in range(count):
        picture = pictures[index % len(pictures)]
        side = int(min(picture.size) * random.uniform(0.5, 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in picture.size)
        crop = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
        crop.save(folder / f"{index:03}.png", compress_level=1)
