"""Weights of an ONNX model that lie in other files: which files, and whether they may be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.errors import UserError

if TYPE_CHECKING:
    import onnx

_EXTERNAL = 1
"""``TensorProto.EXTERNAL``."""


@dataclass(frozen=True)
class ExternalTensor:
    """Where the values of a tensor lie.

    Attributes:
        name: Of the tensor.
        location: Path of the file, as the model has it: relative to the model's folder.
        stop: The byte behind the last one, as far as the model says; else 0.
    """

    name: str
    location: str
    stop: int


def external_tensors(model: onnx.ModelProto) -> Iterator[ExternalTensor]:
    """The tensors of a model whose values lie in other files."""
    for tensor in _tensors(model.graph):
        if tensor.data_location == _EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            start, length = (_number(entries.get(key)) for key in ("offset", "length"))
            yield ExternalTensor(tensor.name, entries.get("location", ""), start + length)


def check_external(model: onnx.ModelProto, path: Path) -> None:
    """Check that all values of a model that lie in other files are there, and nowhere else.

    No file is opened.

    Args:
        model: Without the values of other files.
        path: Of its file.

    Raises:
        UserError: A file is missing, too short, or not in the model's folder.
    """
    folder = path.resolve().parent
    for tensor in external_tensors(model):
        target = (folder / tensor.location).resolve()
        if not tensor.location or not target.is_relative_to(folder):
            raise _error(
                path,
                f"its weight {tensor.name} lies outside its folder ({tensor.location}), where "
                "nothing is read. Save it as one file: onnx.save(onnx.load(FILE), FILE).",
            )
        if not target.is_file():
            raise _error(
                path,
                f"its weights lie in {tensor.location}, which is not beside it. Copy that file, "
                "too.",
            )
        if target.stat().st_size < tensor.stop:
            raise _error(
                path,
                f"{tensor.location}, in which its weights lie, is not complete: "
                f"{target.stat().st_size:,} bytes instead of {tensor.stop:,}. Copy it again.",
            )


def data_files(path: Path) -> tuple[Path, ...]:
    """The files beside a model that hold its weights.

    Args:
        path: Of a model that `check_external` accepts.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    locations = dict.fromkeys(tensor.location for tensor in external_tensors(model))
    return tuple(path.parent / location for location in locations)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The tensors of a graph: initializers and attributes, in branches as well."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for branch in (attribute.g, *attribute.graphs):
                yield from _tensors(branch)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _error(path: Path, reason: str) -> UserError:
    return UserError(f"{path} cannot be loaded as an ONNX model: {reason}")
