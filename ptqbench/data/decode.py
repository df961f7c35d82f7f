"""Read one picture that a user named."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ptqbench.data.preprocessing import upright_rgb
from ptqbench.errors import UserError


def load_image(path: Path) -> Image.Image:
    """Decode a picture: upright, in RGB.

    Greyscale, palette, CMYK and 16-bit pictures are converted, and transparency is laid over
    white; of an animation the first picture counts.

    Raises:
        UserError: There is no such file, or it is no picture that can be decoded.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder. Pass the path of one picture.")
    try:
        with warnings.catch_warnings():
            # A picture that Pillow finds suspiciously large is decoded or refused, not discussed.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return upright_rgb(image).copy()
    except FileNotFoundError:
        raise UserError(f"There is no picture {path}.") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not a picture in a format that can be read.") from None
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"The picture {path} cannot be read: {reason}.") from None
