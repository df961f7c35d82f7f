"""Picture files of every kind, against what NumPy makes of the same numbers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ptqbench.data.decode import load_image
from ptqbench.data.folder import open_folder
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.split import DataOptions
from ptqbench.errors import UserError

Pixels = npt.NDArray[np.uint8]

ROWS, COLUMNS = np.mgrid[0:48, 0:64]
COLOURS = np.stack([ROWS * 5, COLUMNS * 4, 255 - ROWS * 3], axis=2).astype(np.uint8)
"""Smooth, so that JPEG changes little; no two corners are alike."""
GREY = (ROWS * 2 + COLUMNS * 2).astype(np.uint8)
ALPHA = (COLUMNS * 4).astype(np.uint8)
WIDE = (ROWS.astype(np.uint32) * 1300 + COLUMNS * 60).astype(np.uint16)
PALETTE = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 240], [7, 7, 7]], np.uint8)
INDICES = ((ROWS // 24) * 2 + COLUMNS // 32).astype(np.uint8)


def over_white(colours: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[..., None].astype(float) / 255
    return np.round(colours * share + 255 * (1 - share)).astype(np.uint8)


def three(grey: npt.NDArray[np.integer]) -> Pixels:
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def palette_file(path: Path, **options: object) -> None:
    image = Image.fromarray(INDICES, mode="P")
    image.putpalette(PALETTE.flatten().tolist())
    image.save(path, **options)


def cmyk(path: Path) -> None:
    planes = np.concatenate([255 - COLOURS, (GREY // 4)[..., None]], axis=2)
    Image.fromarray(planes, mode="CMYK").save(path, quality=100, subsampling=0)


def animation(path: Path) -> None:
    first = Image.fromarray(GREY)
    first.save(path, save_all=True, append_images=[Image.new("L", first.size, 255)])


def with_alpha(path: Path) -> None:
    Image.fromarray(np.dstack([COLOURS, ALPHA])).save(path)


def grey_with_alpha(path: Path) -> None:
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]).save(path)


FLOATS = (GREY / 255).astype(np.float32)


def tiff(
    path: Path,
    values: npt.NDArray[np.generic],
    *,
    bits: int,
    sample_format: int = 1,
    photometric: int = 1,
    orientation: int = 1,
) -> None:
    """An uncompressed little-endian TIFF with one channel, written from its specification."""
    content = values.tobytes()
    fields = [
        *((256, 4, values.shape[1] * 8 * values.itemsize // bits), (257, 4, values.shape[0])),
        *((258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8), (274, 3, orientation)),
        *((277, 3, 1), (278, 4, values.shape[0]), (279, 4, len(content)), (339, 3, sample_format)),
    ]
    entries = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(content)) + content + directory)


def twelve(path: Path) -> None:
    """Two values of twelve bits in three bytes, the upper bits first."""
    values = (WIDE >> 4).astype(np.uint16)
    first, second = values[:, ::2], values[:, 1::2]
    planes = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
    packed = np.stack(planes, axis=2).astype(np.uint8).reshape(len(values), -1)
    tiff(path, packed, bits=12)


INK = (COLOURS.astype(float) * (255 - GREY[..., None] // 4) / 255).round().astype(np.uint8)
SEE_THROUGH = np.where(INDICES == 2, 0, 255).astype(np.uint8)

KINDS: dict[str, tuple[Callable[[Path], object], Pixels, int]] = {
    "colour.png": (lambda p: Image.fromarray(COLOURS).save(p), COLOURS, 0),
    "colour.jpg": (lambda p: Image.fromarray(COLOURS).save(p, quality=95), COLOURS, 6),
    "progressive.jpg": (
        lambda p: Image.fromarray(COLOURS).save(p, quality=95, progressive=True), COLOURS, 6
    ),
    "colour.webp": (lambda p: Image.fromarray(COLOURS).save(p, lossless=True), COLOURS, 0),
    "grey.png": (lambda p: Image.fromarray(GREY).save(p), three(GREY), 0),
    "grey.jpg": (lambda p: Image.fromarray(GREY).save(p, quality=95), three(GREY), 4),
    "cmyk.jpg": (cmyk, INK, 8),
    "sixteen.png": (lambda p: Image.fromarray(WIDE).save(p), three(WIDE >> 8), 0),
    "sixteen.tif": (lambda p: Image.fromarray(WIDE).save(p), three(WIDE >> 8), 0),
    "sixteen with the ends reversed.tif": (
        lambda p: Image.fromarray(WIDE.astype(">u2")).save(p), three(WIDE >> 8), 0
    ),
    "sixteen with white at zero.tif": (
        lambda p: tiff(p, WIDE, bits=16, photometric=0), three(255 - (WIDE >> 8)), 0
    ),
    "sixteen.pgm": (
        lambda p: p.write_bytes(b"P5 64 48 65535\n" + WIDE.astype(">u2").tobytes()),
        three(WIDE >> 8),
        0,
    ),
    "twelve.tif": (twelve, three(WIDE >> 8), 0),
    "floats.tif": (lambda p: Image.fromarray(FLOATS).save(p), three(GREY), 0),
    "floats with white at zero.tif": (
        lambda p: tiff(p, FLOATS, bits=32, sample_format=3, photometric=0), three(255 - GREY), 0
    ),
    "black and white.png": (
        lambda p: Image.fromarray(GREY > 90).save(p), three((GREY > 90) * 255), 0
    ),
    "palette.png": (palette_file, PALETTE[INDICES], 0),
    "palette.gif": (palette_file, PALETTE[INDICES], 0),
    "palette with transparency.png": (
        lambda p: palette_file(p, transparency=2), over_white(PALETTE[INDICES], SEE_THROUGH), 0
    ),
    "alpha.png": (with_alpha, over_white(COLOURS, ALPHA), 1),
    "grey with alpha.png": (grey_with_alpha, over_white(three(GREY), ALPHA), 1),
    "animation.gif": (animation, three(GREY), 0),
}  # fmt: skip
"""How a file is written, the RGB that is in it, and by how much decoding may be off."""


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    write, expected, tolerance = KINDS[name]
    write(tmp_path / name)
    image = load_image(tmp_path / name)
    assert image.mode == "RGB"
    actual = np.asarray(image).astype(int)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance


@pytest.mark.parametrize(
    ("values", "bits", "sample_format", "why"),
    [
        (FLOATS * 255, 32, 3, "floats from 0 to 220, and which is white is unknown"),
        (FLOATS - 0.5, 32, 3, "floats from -0.5 to 0.3"),
        (np.full_like(FLOATS, np.nan), 32, 3, "floats from nan to nan"),
        (GREY.astype(np.uint32), 32, 1, "32-bit integers, and which is white is unknown"),
        (GREY.astype(np.int32), 32, 2, "signed integers, of which none is white"),
        (WIDE.astype(np.int16), 16, 2, "signed integers"),
        (GREY.astype(np.int8), 8, 2, "signed integers"),
    ],
)
def test_numbers_that_could_mean_anything_are_refused_by_name(
    values: npt.NDArray[np.generic], bits: int, sample_format: int, why: str, tmp_path: Path
) -> None:
    tiff(tmp_path / "x.tif", values, bits=bits, sample_format=sample_format)
    with pytest.raises(UserError) as caught:
        load_image(tmp_path / "x.tif")
    message = str(caught.value)
    assert message.startswith(f"The picture {tmp_path / 'x.tif'} cannot be read: its pixels are ")
    assert why in message and "ave it with 8" in message


GREYS = {
    "eight": (GREY, 8, 1, GREY),
    "sixteen": (WIDE, 16, 1, WIDE >> 8),
    "floats": (FLOATS, 32, 3, GREY),
}


@pytest.mark.parametrize("kind", GREYS)
def test_a_grey_file_is_turned_as_its_tag_says(kind: str, tmp_path: Path) -> None:
    """Pillow reads uncompressed ones with height and width exchanged if it may map them."""
    values, bits, form, expected = GREYS[kind]
    tiff(tmp_path / "x.tif", values, bits=bits, sample_format=form, orientation=6)
    actual = np.asarray(load_image(tmp_path / "x.tif"))
    assert np.array_equal(actual, np.rot90(three(expected), -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_file_is_turned_as_its_exif_says(suffix: str, orientation: int, tmp_path: Path) -> None:
    # Where row 0 and column 0 of what is stored belong, by the EXIF standard.
    stored = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS, 1),
        7: np.rot90(COLOURS, 2).transpose(1, 0, 2),
        8: np.rot90(COLOURS, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"quality": 95}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    actual = np.asarray(load_image(path)).astype(int)
    assert actual.shape == COLOURS.shape
    assert np.abs(actual - COLOURS).max() <= (6 if suffix == "jpg" else 0)


def test_kinds_stand_side_by_side_in_a_set(tmp_path: Path) -> None:
    for name in KINDS:
        (tmp_path / Path(name).stem[0]).mkdir(exist_ok=True)
        KINDS[name][0](tmp_path / Path(name).stem[0] / name)
    folders = sorted(path.name for path in tmp_path.iterdir())
    data = open_folder(tmp_path, DataOptions(Preprocessing(32, 32), None, len(folders)))
    total = data.calibration.count + data.evaluation.count
    shapes = [
        tuple(image.shape)
        for part in (data.calibration, data.evaluation)
        for images, _ in part.batches(0, part.count, 4)
        for image in images
    ]
    assert shapes == [(3, 32, 32)] * total
    assert total == len(KINDS)
