"""Read tables of FlatBuffers by the numbers of their fields, without code made from a schema.

What a stranger wrote may point anywhere: every place is checked to lie within the buffer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np


class MalformedError(ValueError):
    """A buffer is no FlatBuffer of its schema, or only a part of one."""


def _read(buffer: memoryview, form: str, place: int) -> int:
    if place < 0:
        raise MalformedError("it points outside of itself")
    try:
        (value,) = struct.unpack_from(f"<{form}", buffer, place)
    except struct.error:
        raise MalformedError("it points outside of itself") from None
    return int(value)


@dataclass(frozen=True)
class Table:
    """One table of a buffer.

    Attributes:
        buffer: All bytes.
        place: Where the table begins.
    """

    buffer: memoryview
    place: int

    @classmethod
    def root(cls, buffer: memoryview) -> Table:
        """The outermost table of a buffer."""
        return cls(buffer, _read(buffer, "I", 0))

    def _field(self, number: int) -> int:
        """Where a field lies; 0 if it has its default."""
        fields = self.place - _read(self.buffer, "i", self.place)
        entry = 4 + 2 * number
        if entry + 2 > _read(self.buffer, "H", fields):
            return 0
        offset = _read(self.buffer, "H", fields + entry)
        return self.place + offset if offset else 0

    def integer(self, number: int, form: str = "I", default: int = 0) -> int:
        """An integer; ``form`` is its format as of the module ``struct``."""
        place = self._field(number)
        return _read(self.buffer, form, place) if place else default

    def real(self, number: int, default: float = 0.0) -> float:
        """A number of 32 bits."""
        place = self._field(number)
        if not place:
            return default
        return float(np.array(_read(self.buffer, "I", place), np.uint32).view(np.float32))

    def table(self, number: int) -> Table | None:
        """A table; None if it is not there."""
        place = self._field(number)
        return Table(self.buffer, place + _read(self.buffer, "I", place)) if place else None

    def needed(self, number: int) -> Table:
        """A table that has to be there.

        Raises:
            MalformedError: It is not.
        """
        table = self.table(number)
        if table is None:
            raise MalformedError("a part of it is missing")
        return table

    def union(self, number: int) -> tuple[int, Table | None]:
        """The kind of a union, 0 for none, and its table."""
        return self.integer(number, "B"), self.table(number + 1)

    def _vector(self, number: int, size: int) -> tuple[int, int]:
        """Place and length of a vector whose elements have ``size`` bytes."""
        place = self._field(number)
        if not place:
            return 0, 0
        start = place + _read(self.buffer, "I", place)
        length = _read(self.buffer, "I", start)
        if start + 4 + length * size > len(self.buffer):
            raise MalformedError("it ends too early")
        return start + 4, length

    def tables(self, number: int) -> list[Table]:
        """The tables of a vector."""
        start, length = self._vector(number, 4)
        places = range(start, start + 4 * length, 4)
        return [Table(self.buffer, each + _read(self.buffer, "I", each)) for each in places]

    def numbers(self, number: int, kind: str) -> np.ndarray:
        """The numbers of a vector, of a little-endian type of numpy."""
        dtype = np.dtype(kind)
        start, length = self._vector(number, dtype.itemsize)
        return np.frombuffer(self.buffer, dtype, length, start)

    def content(self, number: int) -> memoryview:
        """The bytes of a vector."""
        start, length = self._vector(number, 1)
        return self.buffer[start : start + length]

    def text(self, number: int) -> str:
        """A string; empty if it is not there."""
        return bytes(self.content(number)).decode("utf-8", "replace")
