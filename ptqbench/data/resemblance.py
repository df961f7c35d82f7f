"""Tell pictures that show something from those that show nothing of their own."""

from __future__ import annotations

from torch import Tensor

STEPS = 8
"""Steps of 255 by which pixels may differ in pictures that count as alike: noise and rounding."""

_COARSE = 16


def is_blank(pixels: Tensor) -> bool:
    """Whether a picture is of one colour.

    Args:
        pixels: ``3×H×W`` uint8.
    """
    for part in (pixels[:, ::_COARSE, ::_COARSE], pixels):  # a few pixels show most of them
        flat = part.flatten(1)
        if int((flat.amax(1).int() - flat.amin(1).int()).max()) > STEPS:
            return False
    return True


def is_repeated(pixels: Tensor, previous: Tensor) -> bool:
    """Whether a picture shows what another one shows.

    Args:
        pixels: ``3×H×W`` uint8.
        previous: Of the same shape.
    """
    for step in (_COARSE, 1):
        here, there = (each[:, ::step, ::step].int() for each in (pixels, previous))
        if int((here - there).abs().max()) > STEPS:
            return False
    return True
