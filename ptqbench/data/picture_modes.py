"""Turn pictures of every mode of Pillow into RGB with eight bits, or refuse them by name."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ptqbench.errors import UserError

_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF."""
_WHITE_IS_ZERO = 0
_SIGNED = 2
_WIDE_FORMATS = ("PNG", "PPM", None)
"""Formats whose mode ``I`` is 0 to 65535; None: a picture in memory, by the same convention."""
_HINT = "Save it with 8 or 16 bits per channel"


def upright_rgb(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation and convert to RGB.

    More than eight bits of grey are scaled to eight (Pillow's own conversion clips them), floats
    from 0 to 1 as well, and transparency is laid over white, as in a viewer.

    Args:
        image: A picture of any mode; it is not changed.

    Returns:
        The picture in mode ``RGB``.

    Raises:
        UserError: What its numbers mean cannot be known: floats outside of 0 to 1, signed or
            32-bit integers.
    """
    if image.mode in ("F", "I") or image.mode.startswith("I;") or _sample_format(image) == _SIGNED:
        image = _grey(image)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image


def _grey(image: Image.Image) -> Image.Image:
    """Scale floats and wide integers to eight bits of grey.

    Raises:
        UserError: Their scale cannot be known.
    """
    if _sample_format(image) == _SIGNED:
        raise UserError(f"its pixels are signed integers, of which none is white. {_HINT}")
    if image.mode == "F":
        grey = _from_floats(image)
    elif image.mode == "I" and image.format not in _WIDE_FORMATS:
        raise UserError(f"its pixels are 32-bit integers, and which is white is unknown. {_HINT}")
    else:
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey = (values >> _bits(image) - 8).astype(np.uint8)
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts eight bits only
        grey = 255 - grey
    scaled = Image.fromarray(grey)
    # A TIFF was turned while it was read, and has none any more.
    scaled.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return scaled


def _from_floats(image: Image.Image) -> npt.NDArray[np.uint8]:
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # false of NaN, too
        raise UserError(
            f"its pixels are floats from {low:g} to {high:g}, and which is white is unknown: only "
            f"floats from 0 (black) to 1 (white) are read. Scale it, or save it with 8 bits"
        )
    return np.round(values * 255).astype(np.uint8)


def _bits(image: Image.Image) -> int:
    """Bits that wide integers use: TIFF may have twelve."""
    bits = _tag(image, _BITS)
    return bits if isinstance(bits, int) and image.mode.startswith("I;") else 16


def _sample_format(image: Image.Image) -> object:
    return _tag(image, _SAMPLE_FORMAT)


def _tag(image: Image.Image, number: int) -> object:
    """Value of a tag of TIFF, the first if it has several; None if there is none."""
    tags = getattr(image, "tag_v2", None)
    value = None if tags is None else tags.get(number)
    return value[0] if isinstance(value, tuple) and value else value
