"""Rendered scenes with photograph-like statistics: one seeded image per index.

A scene has a textured, lit background, clutter, one object of the labelled class with
texture, shading and a cast shadow, something in front of it, a lens (blur), a sensor
(noise) and a JPEG file. It depends on ``(seed, split, index)`` alone and is identical
on every machine: see :mod:`ptqbench.data.shapes` for the arithmetic that makes it so.
"""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from ptqbench.data.shapes import SHAPES, Field

SIZE = 64
"""Height and width of a fixture image in pixels."""

_MATERIALS = 17
"""Seed of the classes' typical surfaces."""

Pixels = npt.NDArray[np.uint8]

_Y, _X = np.meshgrid(
    (np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / SIZE) - np.float32(1),
    (np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / SIZE) - np.float32(1),
    indexing="ij",
)


class _Dice:
    """Uniform draws from the raw 64-bit stream of PCG64, which NumPy keeps stable."""

    def __init__(self, *entropy: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def array(self, *shape: int) -> Field:
        """Uniform float32 values in [0, 1) with 24 random bits each."""
        raw = self._bits.random_raw(math.prod(shape))
        return ((raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)).reshape(shape)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def direction(self) -> tuple[float, float]:
        """Cosine and sine of a random angle, without a trigonometric function."""
        while True:
            c, s = self.uniform(-1, 1), self.uniform(-1, 1)
            length = math.sqrt(c * c + s * s)
            if 0.1 < length <= 1:
                return c / length, s / length


def _mix(below: Field, above: Field, alpha: Field) -> Field:
    return below + (above - below) * alpha


def _colour(dice: _Dice, low: float = 0.05, high: float = 0.95) -> Field:
    """A random colour, ``3×1×1``: any brightness, but muted, as things outdoors are."""
    chroma = (dice.array(3, 1, 1) - np.float32(0.5)) * np.float32(0.55 * (high - low))
    return np.float32(dice.uniform(low, high)) + chroma


def _noise(dice: _Dice, cells: int) -> Field:
    """Value noise: a random lattice of ``cells`` + 1 points a side, interpolated linearly."""
    lattice = dice.array(cells + 1, cells + 1)
    at = np.arange(SIZE, dtype=np.float32) * np.float32(cells / SIZE)
    low = at.astype(np.int64)
    part = at - low.astype(np.float32)
    rows = _mix(lattice[low], lattice[low + 1], part[:, None])
    return _mix(rows[:, low], rows[:, low + 1], part[None, :])


def _texture(dice: _Dice) -> Field:
    """A pattern in [0, 1], ``H×W``: rough noise, stripes or checks in a random direction."""
    rough = np.float32(0.6) * _noise(dice, 5) + np.float32(0.4) * _noise(dice, 17)
    if dice.chance(0.5):
        return rough
    c, s = dice.direction()
    period = dice.uniform(1.5, 6)
    u = (_X * np.float32(c) + _Y * np.float32(s)) * np.float32(period) + rough
    pattern: Field = np.abs(u - np.floor(u) - np.float32(0.5)) * np.float32(2)
    if dice.chance(0.4):
        v = (_Y * np.float32(c) - _X * np.float32(s)) * np.float32(period) + rough
        across: Field = np.abs(v - np.floor(v) - np.float32(0.5)) * np.float32(2)
        pattern = np.abs(pattern - across)
    return pattern


def _surface(dice: _Dice, strength: float) -> Field:
    """A coloured, textured surface, ``3×H×W``."""
    colour = _colour(dice)
    tint = _colour(dice, -0.5, 0.5) * np.float32(strength)
    relief = (_texture(dice) - np.float32(0.5)) * np.float32(2)
    surface: Field = np.add(colour, tint * relief)
    return surface


def _material(dice: _Dice, label: int) -> Field:
    """The typical surface of a class, ``3×H×W``: trees are mostly green, bricks mostly red.

    Half of the materials are plain and half striped, in a colour of their own each.
    """
    own = _Dice(_MATERIALS, label)
    colour = np.float32(0.1) + own.array(3, 1, 1) * np.float32(0.8)
    tint = (own.array(3, 1, 1) - np.float32(0.5)) * np.float32(0.8)
    period = own.uniform(2, 6)
    c, s = own.direction()
    u = (_X * np.float32(c) + _Y * np.float32(s)) * np.float32(period)
    stripes = np.abs(u - np.floor(u) - np.float32(0.5)) * np.float32(2)
    pattern = stripes if label % 2 else _noise(dice, 9)
    jitter = (dice.array(3, 1, 1) - np.float32(0.5)) * np.float32(0.4)
    return colour + jitter + tint * (pattern - np.float32(0.5))


def _pose(
    dice: _Dice, low: float, high: float, reach: float, upright: float = 0.0
) -> tuple[Field, Field, float]:
    """Object coordinates of every pixel under a random pose, and the object's half size."""
    c, s = dice.direction()
    if dice.chance(upright):
        c, s = 1.0, dice.uniform(-0.35, 0.35)
        length = math.sqrt(c * c + s * s)
        c, s = c / length, s / length
    scale = dice.uniform(low, high)
    stretch = dice.uniform(0.75, 1.3)
    shear = dice.uniform(-0.25, 0.25)
    dx = _X - np.float32(dice.uniform(-reach, reach))
    dy = _Y - np.float32(dice.uniform(-reach, reach))
    u = (dx * np.float32(c) + dy * np.float32(s)) / np.float32(scale * stretch)
    v = (dy * np.float32(c) - dx * np.float32(s)) / np.float32(scale)
    return u + v * np.float32(shear), v, scale


def _cover(field: Field, scale: float, softness: float = 1.0) -> Field:
    """How much of each pixel a shape covers, in [0, 1]; ``softness`` is the edge in pixels."""
    edge = np.float32(scale * SIZE / 2 / softness)
    cover: Field = np.clip(np.float32(0.5) - field * edge, np.float32(0), np.float32(1))
    return cover


def _clutter(dice: _Dice, image: Field, count: int, low: float, high: float) -> Field:
    """Bars, blobs and frames that are none of the classes, or too small to be one."""
    for _ in range(count):
        u, v, scale = _pose(dice, low, high, 1.0)
        kind = dice.uniform(0, 3)
        if kind < 1:
            field = np.maximum(np.abs(u) - np.float32(0.25), np.abs(v) - np.float32(1.6))
        elif kind < 2:
            field = np.sqrt(u * u + v * v * np.float32(2.5)) - np.float32(0.8)
        else:
            field = np.abs(np.maximum(np.abs(u), np.abs(v)) - np.float32(0.8)) - np.float32(0.15)
        image = _mix(image, _surface(dice, 0.5), _cover(field, scale))
    return image


def _object(dice: _Dice, image: Field, label: int) -> Field:
    u, v, scale = _pose(dice, 0.5, 0.85, 0.22, upright=0.92)
    field = SHAPES[label](u, v)
    cover = _cover(field, scale)
    shift_x, shift_y = int(dice.uniform(-6, 7)), int(dice.uniform(1, 7))
    shadow = np.roll(_cover(field, scale, softness=5.0), (shift_y, shift_x), (0, 1))
    image = image * (np.float32(1) - shadow * np.float32(dice.uniform(0.1, 0.6)))
    surface = _surface(dice, 0.45)
    if dice.chance(0.9):
        surface = _material(dice, label)
    c, s = dice.direction()
    light = (u * np.float32(c) + v * np.float32(s)) * np.float32(dice.uniform(0.1, 0.4))
    rim = np.clip(field * np.float32(4) + np.float32(1), np.float32(0), np.float32(1))
    surface = surface * (np.float32(1) + light - rim * np.float32(dice.uniform(-0.2, 0.35)))
    opacity = np.float32(dice.uniform(0.7, 1.0))  # haze, glass, dirt: contrast varies
    return _mix(image, surface, cover * opacity)


def _lighting(dice: _Dice, image: Field) -> Field:
    c, s = dice.direction()
    slope = np.float32(dice.uniform(0, 0.45))
    gain: Field = (
        np.float32(dice.uniform(0.6, 1.2)) + (_X * np.float32(c) + _Y * np.float32(s)) * slope
    )
    cast = np.float32(1) + (dice.array(3, 1, 1) - np.float32(0.5)) * np.float32(0.3)
    return image * gain * cast


def _blur(image: Field, passes: int) -> Field:
    """Repeated [1 2 1]/4 in both directions (close to a Gaussian), edges repeated."""
    for _ in range(passes):
        wide = np.pad(image, ((0, 0), (1, 1), (0, 0)), mode="edge")
        above, middle, below = wide[:, :-2], wide[:, 1:-1], wide[:, 2:]
        image = (above + middle * np.float32(2) + below) * np.float32(0.25)
        wide = np.pad(image, ((0, 0), (0, 0), (1, 1)), mode="edge")
        left, middle, right = wide[:, :, :-2], wide[:, :, 1:-1], wide[:, :, 2:]
        image = (left + middle * np.float32(2) + right) * np.float32(0.25)
    return image


def _sensor(dice: _Dice, image: Field) -> Field:
    grain = dice.array(3, SIZE, SIZE) + dice.array(3, SIZE, SIZE) - np.float32(1)
    return image + grain * np.float32(dice.uniform(0.01, 0.1))


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image)


def render(seed: int, split: int, index: int, label: int) -> Pixels:
    """Render one scene.

    Args:
        seed: Seed of the whole set.
        split: Number of the split's stream; different splits share no draws.
        index: Position in the stream.
        label: Class of the object, an index into ``shapes.CLASSES``.

    Returns:
        The decoded JPEG, ``H×W×3`` uint8.
    """
    dice = _Dice(seed, split, index)
    image = _surface(dice, 0.6)
    image = _clutter(dice, image, count=int(dice.uniform(1, 5)), low=0.15, high=0.5)
    image = _object(dice, image, label)
    if dice.chance(0.5):
        image = _clutter(dice, image, count=int(dice.uniform(1, 3)), low=0.1, high=0.28)
    image = _lighting(dice, image)
    image = _blur(image, passes=int(dice.uniform(0, 3)))
    image = _sensor(dice, image)
    levels = np.clip(image * np.float32(255) + np.float32(0.5), np.float32(0), np.float32(255))
    pixels = np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))
    return _jpeg(pixels, quality=int(dice.uniform(30, 96)))
