"""Random images, which depend on seed and position alone."""

from __future__ import annotations

import torch

from ptqbench.data.random_images import RandomImages


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = RandomImages(8, 3)
    whole = torch.cat([pixels for pixels, _ in images.batches(0, 16, 16)])
    for size in (1, 5):
        assert torch.equal(torch.cat([p for p, _ in images.batches(0, 16, size)]), whole)
    assert torch.equal(torch.cat([p for p, _ in images.batches(7, 9, 4)]), whole[7:9])


def test_hashes_differ_where_images_do() -> None:
    hashes = [*RandomImages(8, 3).content_hashes(0, 16), *RandomImages(8, 4).content_hashes(0, 16)]
    assert len(set(hashes)) == 32
