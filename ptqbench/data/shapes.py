"""The sixteen objects of the fixture images, as signed distance fields.

Every function takes object coordinates ``x`` (right) and ``y`` (down), float32
arrays of one shape, and returns a float32 array of that shape: negative inside the
object, positive outside, roughly in units of the object's half size.

Only ``+ - * / sqrt abs min max`` are used: IEEE 754 fixes their results to the last
bit, so that the images are identical on every machine (``sin`` or ``exp`` are not).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Shape = Callable[[Field, Field], Field]


def _circle(x: Field, y: Field, cx: float, cy: float, radius: float) -> Field:
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    field: Field = np.sqrt(dx * dx + dy * dy) - np.float32(radius)
    return field


def _ellipse(x: Field, y: Field, cx: float, cy: float, rx: float, ry: float) -> Field:
    dx, dy = (x - np.float32(cx)) / np.float32(rx), (y - np.float32(cy)) / np.float32(ry)
    field: Field = (np.sqrt(dx * dx + dy * dy) - np.float32(1)) * np.float32(min(rx, ry))
    return field


def _box(x: Field, y: Field, left: float, top: float, right: float, bottom: float) -> Field:
    cx, cy = np.float32((left + right) / 2), np.float32((top + bottom) / 2)
    half_w, half_h = np.float32((right - left) / 2), np.float32((bottom - top) / 2)
    field: Field = np.maximum(np.abs(x - cx) - half_w, np.abs(y - cy) - half_h)
    return field


def _half_plane(x: Field, y: Field, ax: float, ay: float, bx: float, by: float) -> Field:
    """Signed distance to the line a→b, positive on its left (with ``y`` pointing down)."""
    length = math.sqrt((bx - ax) ** 2 + (by - ay) ** 2)
    nx, ny = np.float32((by - ay) / length), np.float32((ax - bx) / length)
    return (x - np.float32(ax)) * nx + (y - np.float32(ay)) * ny


def _polygon(x: Field, y: Field, *points: tuple[float, float]) -> Field:
    """A convex polygon, its corners clockwise as seen on the screen."""
    edges = zip(points, points[1:] + points[:1], strict=True)
    field = None
    for (ax, ay), (bx, by) in edges:
        plane = _half_plane(x, y, ax, ay, bx, by)
        field = plane if field is None else np.maximum(field, plane)
    assert field is not None
    return field


def _union(*fields: Field) -> Field:
    result = fields[0]
    for field in fields[1:]:
        result = np.minimum(result, field)
    return result


def _without(field: Field, hole: Field) -> Field:
    return np.maximum(field, -hole)


def ball(x: Field, y: Field) -> Field:
    return _circle(x, y, 0, 0, 0.85)


def ring(x: Field, y: Field) -> Field:
    return _without(_circle(x, y, 0, 0, 0.88), _circle(x, y, 0, 0, 0.5))


def crescent(x: Field, y: Field) -> Field:
    return _without(_circle(x, y, 0, 0, 0.9), _circle(x, y, 0.4, 0, 0.72))


def block(x: Field, y: Field) -> Field:
    return _box(x, y, -0.78, -0.78, 0.78, 0.78)


def pyramid(x: Field, y: Field) -> Field:
    return _polygon(x, y, (0, -0.95), (0.95, 0.75), (-0.95, 0.75))


def star(x: Field, y: Field) -> Field:
    # The five lines of a pentagram: inside it a point is beyond at most one of them,
    # so the field is the second largest of the five distances.
    tips = (
        (0.0, -1.0),
        (0.9510565, -0.3090170),
        (0.5877853, 0.8090170),
        (-0.5877853, 0.8090170),
        (-0.9510565, -0.3090170),
    )
    lines = [_half_plane(x, y, *tips[i], *tips[(i + 2) % 5]) for i in range(5)]
    largest, second = lines[0], np.full_like(x, -np.inf)
    for line in lines[1:]:
        second = np.maximum(second, np.minimum(largest, line))
        largest = np.maximum(largest, line)
    return second


def cross(x: Field, y: Field) -> Field:
    return _union(_box(x, y, -0.9, -0.28, 0.9, 0.28), _box(x, y, -0.28, -0.9, 0.28, 0.9))


def arrow(x: Field, y: Field) -> Field:
    return _union(
        _box(x, y, -0.9, -0.22, 0.15, 0.22),
        _polygon(x, y, (0.1, -0.7), (0.95, 0.0), (0.1, 0.7)),
    )


def mug(x: Field, y: Field) -> Field:
    handle = _without(_circle(x, y, 0.42, 0.02, 0.48), _circle(x, y, 0.42, 0.02, 0.26))
    return _union(_box(x, y, -0.72, -0.75, 0.38, 0.75), handle)


def bottle(x: Field, y: Field) -> Field:
    return _union(
        _box(x, y, -0.38, -0.2, 0.38, 0.95),
        _polygon(x, y, (-0.15, -0.5), (0.15, -0.5), (0.38, -0.2), (-0.38, -0.2)),
        _box(x, y, -0.15, -0.95, 0.15, -0.45),
    )


def house(x: Field, y: Field) -> Field:
    walls = _box(x, y, -0.62, -0.1, 0.62, 0.88)
    roof = _polygon(x, y, (0, -0.92), (0.9, -0.1), (-0.9, -0.1))
    return _without(_union(walls, roof), _box(x, y, -0.16, 0.35, 0.16, 0.9))


def tree(x: Field, y: Field) -> Field:
    return _union(
        _polygon(x, y, (0, -0.98), (0.5, -0.3), (-0.5, -0.3)),
        _polygon(x, y, (0, -0.6), (0.72, 0.45), (-0.72, 0.45)),
        _box(x, y, -0.14, 0.4, 0.14, 0.95),
    )


def fish(x: Field, y: Field) -> Field:
    body = _ellipse(x, y, -0.2, 0, 0.75, 0.45)
    tail = _polygon(x, y, (0.3, 0.0), (0.95, -0.5), (0.95, 0.5))
    return _without(_union(body, tail), _circle(x, y, -0.6, -0.1, 0.1))


def mushroom(x: Field, y: Field) -> Field:
    cap = np.maximum(_ellipse(x, y, 0, 0, 0.92, 0.85), _half_plane(x, y, 1, 0, -1, 0))
    return _union(cap, _box(x, y, -0.26, -0.05, 0.26, 0.88))


def key(x: Field, y: Field) -> Field:
    bow = _without(_circle(x, y, -0.55, 0, 0.42), _circle(x, y, -0.55, 0, 0.2))
    shaft = _box(x, y, -0.2, -0.12, 0.95, 0.12)
    teeth = _union(_box(x, y, 0.45, 0, 0.6, 0.4), _box(x, y, 0.75, 0, 0.92, 0.4))
    return _union(bow, shaft, teeth)


def hammer(x: Field, y: Field) -> Field:
    return _union(_box(x, y, -0.15, -0.5, 0.15, 0.95), _box(x, y, -0.7, -0.9, 0.5, -0.4))


SHAPES: tuple[Shape, ...] = (
    ball,
    ring,
    crescent,
    block,
    pyramid,
    star,
    cross,
    arrow,
    mug,
    bottle,
    house,
    tree,
    fish,
    mushroom,
    key,
    hammer,
)  # fmt: skip

CLASSES: tuple[str, ...] = tuple(shape.__name__ for shape in SHAPES)
"""Class names of the fixture set, in label order."""
