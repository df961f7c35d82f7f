"""Preprocessing against torchvision's transforms, and the pictures people really have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ptqbench.data.picture_modes import upright_rgb
from ptqbench.data.preprocessing import INTERPOLATIONS, Preprocessing
from ptqbench.errors import UserError
from ptqbench.models.import_torchvision import import_torchvision

transforms = import_torchvision().transforms


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("size", [(31, 47), (47, 31), (64, 64), (201, 64), (17, 16), (333, 100)])
@pytest.mark.parametrize(("resize", "crop"), [(64, 64), (40, 33), (37, 32)])
def test_pixels_equal_torchvision(size: tuple[int, int], resize: int, crop: int) -> None:
    image = picture(*size)
    mode = transforms.InterpolationMode.BILINEAR
    reference = transforms.Compose(
        [transforms.Resize(resize, mode), transforms.CenterCrop(crop), transforms.PILToTensor()]
    )
    pixels = Preprocessing(resize, crop).pixels(image)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, reference(image))


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_every_interpolation_equals_torchvision(name: str) -> None:
    image = picture(50, 70)
    mode = transforms.InterpolationMode(name)
    reference = transforms.Compose([transforms.Resize(32, mode), transforms.PILToTensor()])
    reference = transforms.CenterCrop(32)(reference(image))
    assert torch.equal(Preprocessing(32, 32, interpolation=name).pixels(image), reference)


def test_normalise_equals_torchvision() -> None:
    image = picture(64, 64)
    preprocessing = Preprocessing(64, 64)
    reference = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)]
    )
    values = preprocessing.normalise(preprocessing.pixels(image)[None])
    assert values.dtype == torch.float32
    assert torch.equal(values[0], reference(image))


def test_normalise_leaves_pixels_alone_and_answers_contiguously() -> None:
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    before = pixels.clone()
    values = Preprocessing(8, 8).normalise(pixels)
    assert values.is_contiguous()
    assert torch.equal(pixels, before)
    assert torch.equal(values, Preprocessing(8, 8).normalise(before.contiguous()))


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    image = picture(64, 64)
    pixels = Preprocessing(64, 64).pixels(image)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    # What a viewer shows, by the definition in the EXIF standard (row 0, column 0 are at …).
    upright = np.asarray(picture(6, 4))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    image.getexif()[0x0112] = orientation
    assert np.array_equal(np.asarray(upright_rgb(image)), upright)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    white = Image.new("RGB", (5, 4), (255, 255, 255)).convert("L" if mode == "LA" else "RGB")
    image = upright_rgb(white.convert(mode))
    assert image.mode == "RGB"
    assert np.asarray(image).min() >= 254


def test_sixteen_bit_greyscale_is_scaled_not_clipped() -> None:
    values = np.array([[0, 0x1234, 0x8000, 0xFFFF]], dtype=np.uint16)
    image = upright_rgb(Image.fromarray(values))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0x12, 0x80, 0xFF]


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert np.asarray(upright_rgb(image)).tolist() == [[[255, 255, 255], [10, 20, 30]]]
    palette = image.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert np.asarray(upright_rgb(palette))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": 0}, "resize=0"),
        ({"resize": "64"}, "resize='64'"),
        ({"crop": True}, "crop=True"),
        ({"crop": 2.5}, "crop=2.5"),
        ({"resize": 1_000_000}, "from 1 to 4096"),
        ({"resize": 64}, "crop=224 is larger than resize=64"),
        ({"mean": (0.5, 0.5)}, "three numbers"),
        ({"mean": "abc"}, "three numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "three numbers"),
        ({"mean": (123.7, 116.3, 103.5)}, "by 255"),
        ({"std": (0.2, 0, 0.2)}, "greater than 0"),
        ({"std": None}, "three numbers"),
        ({"interpolation": "bilinaer"}, "Did you mean bilinear"),
        ({"interpolation": ["bilinear"]}, "Unknown interpolation"),
    ],
)
def test_wrong_settings_are_explained(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocessing(**settings)  # type: ignore[arg-type]


def test_lists_become_tuples() -> None:
    preprocessing = Preprocessing(mean=[0, 0, 0], std=[1, 1, 1])  # type: ignore[arg-type]
    assert preprocessing == Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert hash(preprocessing) == hash(Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
