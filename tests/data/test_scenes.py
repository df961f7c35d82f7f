"""The renderer of the fixture images: frozen, since weights were trained on its images."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ptqbench.data.fixture.scenes import SIZE, render
from ptqbench.data.fixture.shapes import CLASSES, SHAPES

GOLDEN = {
    (0, 0, 0, 0): "107489564f04f681",
    (0, 1, 17, 1): "e45cfb517475f2b6",
    (0, 2, 9_999, 15): "fc5445d0c5a8a1a5",
}


@pytest.mark.parametrize("scene", GOLDEN)
def test_images_are_frozen(scene: tuple[int, int, int, int]) -> None:
    assert hashlib.sha256(render(*scene).tobytes()).hexdigest()[:16] == GOLDEN[scene]


def test_an_image_is_a_decoded_colour_picture() -> None:
    image = render(0, 0, 3, 3)
    assert image.shape == (SIZE, SIZE, 3)
    assert image.dtype == np.uint8


def test_an_image_depends_on_nothing_but_its_address() -> None:
    first = render(0, 2, 5, 5)
    render(1, 1, 1, 1)
    np.random.seed(3)
    assert np.array_equal(render(0, 2, 5, 5), first)


@pytest.mark.parametrize("other", [(1, 2, 5, 5), (0, 1, 5, 5), (0, 2, 6, 5), (0, 2, 5, 6)])
def test_every_part_of_the_address_matters(other: tuple[int, int, int, int]) -> None:
    assert not np.array_equal(render(*other), render(0, 2, 5, 5))


def test_there_are_sixteen_classes() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == len(SHAPES) == 16


@pytest.mark.parametrize("label", range(16))
def test_a_shape_fills_a_part_of_its_unit_square_only(label: int) -> None:
    line = np.linspace(-1.5, 1.5, 151, dtype=np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    field = SHAPES[label](x, y)
    assert field.dtype == np.float32
    assert field.shape == x.shape
    inside = field < 0
    assert 0.02 < inside.mean() < 0.4
    assert not inside[(np.abs(x) > 1.05) | (np.abs(y) > 1.05)].any()


def test_shapes_differ_from_each_other() -> None:
    line = np.linspace(-1, 1, 41, dtype=np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    masks = {(shape(x, y) < 0).tobytes() for shape in SHAPES}
    assert len(masks) == 16


def test_statistics_are_those_of_photographs() -> None:
    images = np.stack([render(0, 0, i, i % 16) for i in range(64)]).astype(np.float64) / 255
    means = images.mean((1, 2, 3))
    assert means.std() > 0.08  # dark and bright pictures
    assert 0.3 < images.mean() < 0.6
    assert 0.05 < np.median(images.std((1, 2))) < 0.35  # contrast within one
    # Power falls with spatial frequency, as it does in photographs (about 1/f²).
    spectrum = np.abs(np.fft.fft2(images.mean(3) - images.mean((1, 2, 3))[:, None, None])) ** 2
    power = spectrum.mean(0)
    low, high = power[0, 1:4].mean(), power[0, 20:32].mean()
    assert low > 30 * high
