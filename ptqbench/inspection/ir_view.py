"""An IR model as something to look things up in: constants, readers, shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptqbench.backends.openvino.ir_structure import (
    IrNode,
    IrStructure,
    read_structure,
    weights_path,
)
from ptqbench.inspection.ir_shapes import inferred_shapes, reshaped

MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool")
"""Operators whose outputs are some of their inputs."""
_TYPES: Mapping[str, np.dtype[Any]] = {
    **{name: np.dtype(f"<{name[0]}{int(name[1:]) // 8}") for name in ("f16", "f32", "f64")},
    **{f"i{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    "boolean": np.dtype(np.uint8),
}
"""Types of constants that are read; those of 4 bits and the like are not."""


@dataclass(frozen=True)
class IrView:
    """A model with what is looked up in it.

    Attributes:
        structure: What the XML file says.
        weights: All bytes of the other file.
        readers: The operators that read an operator.
        shapes: Of the outputs of operators, as far as they can be inferred, for one image.
    """

    structure: IrStructure
    weights: np.ndarray
    readers: Mapping[int, list[IrNode]]
    shapes: Mapping[tuple[int, int], list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> IrView:
        """Look at a file.

        Raises:
            UserError: It is missing, damaged or of another kind.
        """
        structure = read_structure(path)
        weights: np.ndarray = np.empty(0, np.uint8)
        if structure.weights_size:
            weights = np.memmap(weights_path(path), np.uint8, "r")
        readers: dict[int, list[IrNode]] = {}
        for node in structure.nodes:
            for source, _ in node.sources:
                readers.setdefault(id(source), []).append(node)
        view = cls(structure, weights, readers)
        return cls(structure, weights, readers, inferred_shapes(structure.nodes, view.constant))

    @property
    def nodes(self) -> tuple[IrNode, ...]:
        """Operators, each behind what it reads."""
        return self.structure.nodes

    def after(self, node: IrNode) -> list[IrNode]:
        """The operators that read an operator."""
        return self.readers.get(id(node), [])

    def source(self, node: IrNode, place: int) -> IrNode | None:
        """The operator that an input comes from."""
        return node.sources[place][0] if place < len(node.sources) else None

    def shape(self, node: IrNode, place: int) -> list[int] | None:
        """The shape of an input, for one image; None if it is not known."""
        if place >= len(node.sources):
            return None
        source, output = node.sources[place]
        return self.shapes.get((id(source), output))

    def constant(self, node: IrNode | None) -> np.ndarray | None:
        """The value of an operator that is constant but for its type and shape."""
        path = []
        while node is not None and node.kind in ("Convert", "Reshape", "Unsqueeze", "Squeeze"):
            path.append(node)
            node = self.source(node, 0)
        value = None if node is None or node.kind != "Const" else self._stored(node)
        for step in reversed(path):
            value = None if value is None else self._changed(value, step)
        return value

    def _changed(self, value: np.ndarray, node: IrNode) -> np.ndarray | None:
        """A value of another type or shape."""
        if node.kind == "Convert":
            kind = _TYPES.get(node.attributes.get("destination_type", ""))
            return None if kind is None else value.astype(kind)
        target = self.source(node, 1)
        numbers = None if target is None or target.kind != "Const" else self._stored(target)
        if numbers is None:
            return None
        places = [int(number) for number in numbers.reshape(-1)]
        try:
            if node.kind == "Reshape":
                return value.reshape(reshaped(node, list(value.shape), places))
            change = np.expand_dims if node.kind == "Unsqueeze" else np.squeeze
            return change(value, tuple(places))
        except (ValueError, IndexError, ZeroDivisionError):
            return None

    def _stored(self, node: IrNode) -> np.ndarray | None:
        kind = _TYPES.get(node.attributes.get("element_type", ""))
        place = node.place
        if kind is None or place is None:
            return None
        offset, size = place
        shape = node.stored_shape
        if min(shape, default=0) < 0 or int(np.prod(shape)) * kind.itemsize > size:
            return None
        values = self.weights[offset : offset + int(np.prod(shape)) * kind.itemsize]
        return np.frombuffer(values.tobytes(), kind).reshape(shape)
