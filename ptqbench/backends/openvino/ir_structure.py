"""The structure of an IR model, read as XML: operators, what they read, and where constants lie.

Needs neither OpenVINO nor torch, and executes nothing.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from ptqbench.core.paths import exists, is_dir
from ptqbench.errors import UserError

_OPSET = re.compile(r"opset\d+")
"""Operators of these sets come with OpenVINO; any other needs code of the file's author."""
_AGAIN = "Convert or copy it again."


@dataclass
class IrNode:
    """An operator.

    Attributes:
        name: Friendly name.
        kind: As the file calls it: ``Convolution``, ``ReLU``, ``Const``.
        attributes: What the file says of it, as text.
        sources: What it reads, in order: the operator and which of its outputs.
        shapes: Of its outputs; −1 where a size is open, empty for one number, and for what the
            file does not say.
    """

    name: str
    kind: str
    attributes: dict[str, str] = field(default_factory=dict)
    sources: list[tuple[IrNode, int]] = field(default_factory=list, repr=False)
    shapes: list[list[int]] = field(default_factory=list)

    @property
    def place(self) -> tuple[int, int] | None:
        """Offset and size in bytes of a constant."""
        if "offset" not in self.attributes or "size" not in self.attributes:
            return None
        return int(self.attributes["offset"]), int(self.attributes["size"])

    @property
    def stored_shape(self) -> list[int]:
        """Shape of a constant."""
        return [int(part) for part in self.attributes.get("shape", "").split(",") if part.strip()]


@dataclass(frozen=True)
class IrStructure:
    """What the XML file says.

    Attributes:
        version: Of the format.
        nodes: Operators, each behind what it reads.
        constants: Type, offset and size in bytes of each constant, those in bodies of loops too.
        notes: Information on the whole model, by the names of its elements: ``nncf/version``.
    """

    version: int
    nodes: tuple[IrNode, ...]
    constants: tuple[tuple[str, int, int], ...]
    notes: Mapping[str, str]

    @property
    def weights_size(self) -> int:
        """Bytes that the file of weights must have at least."""
        return max((offset + size for _, offset, size in self.constants), default=0)


class DamagedIrError(Exception):
    """The file must not, or cannot, be read; carries the reason."""


def weights_path(path: Path) -> Path:
    """Where the weights of a file lie: beside it, in a file of the same name."""
    return path.with_suffix(".bin")


def refusal(path: Path, reason: str) -> UserError:
    """The error that says why a file cannot be loaded."""
    return UserError(f"{path} cannot be loaded as an OpenVINO model: {reason}")


def read_structure(path: Path) -> IrStructure:
    """Read the structure of a model, and check that its weights are there.

    Args:
        path: The file ``.xml``.

    Raises:
        UserError: A file is missing, damaged or of another kind, or it needs operators that
            OpenVINO does not bring.
    """
    if not exists(path):
        raise refusal(path, "it does not exist. Check the path.")
    if is_dir(path):
        raise refusal(path, "it is a folder. Name the file in it.")
    try:
        structure = _parsed(path.read_bytes())
        _check_size(structure, weights_path(path))
    except OSError as error:
        raise refusal(path, f"{error.strerror or error}.") from None
    except DamagedIrError as damage:
        raise refusal(path, str(damage)) from None
    return structure


def _parsed(content: bytes) -> IrStructure:
    if not content:
        raise DamagedIrError(f"it is empty. {_AGAIN}")
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_document_type
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError) as error:
        raise DamagedIrError(f"it is no XML, or not complete ({error}). {_AGAIN}") from None
    return reader.structure()


def _refuse_document_type(*_: object) -> None:
    # Entities can be made to expand without end, and to read other files.
    raise DamagedIrError("it declares a document type, which IR files do not have.")


def _check_size(structure: IrStructure, path: Path) -> None:
    if min((min(each[1:]) for each in structure.constants), default=0) < 0:
        raise DamagedIrError(f"a constant lies at a negative place. {_AGAIN}")
    needed = structure.weights_size
    if not needed:
        return
    if not exists(path) or is_dir(path):
        raise DamagedIrError(f"the file with its weights, {path.name}, is not beside it.")
    size = path.stat().st_size
    if size < needed:
        raise DamagedIrError(
            f"{path.name} has {size:,} bytes, but its weights take {needed:,}: it is not "
            "complete, or of another model."
        )


class _Reader:
    """Takes the elements of a file one by one."""

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._root = ("", 0)
        self._nodes: dict[str, IrNode] = {}
        self._ports: dict[str, dict[str, int]] = {}
        self._node: IrNode | None = None
        self._layer = ""
        self._edges: list[Mapping[str, str]] = []
        self._foreign: set[str] = set()
        self._constants: list[tuple[str, int, int]] = []
        self._notes: dict[str, str] = {}
        self._dimension = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""
        stack = self._stack
        if not stack:
            self._root = (tag, int(attributes.get("version") or 0))
        elif tag == "layer":
            self._operator(attributes)
        elif tag == "data":
            self._data(attributes)
        elif stack == ["net", "layers", "layer", "output"] and tag == "port" and self._node:
            self._ports[self._layer][attributes["id"]] = len(self._node.shapes)
            self._node.shapes.append([])
        elif stack == ["net", "edges"] and tag == "edge":
            self._edges.append(attributes)
        elif stack[:2] == ["net", "rt_info"] and "value" in attributes:
            key = "/".join([*stack[2:], attributes.get("name") or tag])
            self._notes[key] = attributes["value"]
        stack.append(tag)

    def end(self, tag: str) -> None:
        """Take the end of an element."""
        self._stack.pop()
        inside = self._stack == ["net", "layers", "layer", "output", "port"]
        if tag == "dim" and inside and self._node is not None and self._node.shapes:
            self._node.shapes[-1].append(int(self._dimension))
        self._dimension = ""

    def text(self, content: str) -> None:
        """Take what stands between elements."""
        if self._stack and self._stack[-1] == "dim":
            self._dimension += content

    def _operator(self, attributes: Mapping[str, str]) -> None:
        kind, opset = attributes.get("type", ""), attributes.get("version", "")
        if not _OPSET.fullmatch(opset):
            self._foreign.add(f"{opset}::{kind}")
        if self._stack == ["net", "layers"]:  # and not in the body of a loop
            self._layer = attributes.get("id", "")
            self._node = IrNode(attributes.get("name", ""), kind)
            self._nodes[self._layer] = self._node
            self._ports[self._layer] = {}

    def _data(self, attributes: dict[str, str]) -> None:
        if "offset" in attributes and "size" in attributes:
            place = int(attributes["offset"]), int(attributes["size"])
            self._constants.append((attributes.get("element_type", ""), *place))
        if self._stack == ["net", "layers", "layer"] and self._node is not None:
            self._node.attributes = attributes

    def structure(self) -> IrStructure:
        """All of it, once the file is read.

        Raises:
            DamagedIrError: It is no model that may be loaded.
        """
        name, version = self._root
        if name != "net" or version < 10 or not self._nodes:
            raise DamagedIrError(
                "it is XML, but no model of OpenVINO with operators of version 10 or later. "
                "Convert the model again: openvino.save_model."
            )
        if self._foreign:
            raise DamagedIrError(
                f"it needs custom operators ({', '.join(sorted(self._foreign)[:3])}), whose code "
                "would have to be loaded. Convert it with operators of OpenVINO alone."
            )
        self._connect()
        nodes = tuple(_in_order(list(self._nodes.values())))
        return IrStructure(version, nodes, tuple(self._constants), self._notes)

    def _connect(self) -> None:
        places: dict[str, list[tuple[int, IrNode, int]]] = {}
        for edge in self._edges:
            source, target = (self._nodes.get(edge.get(f"{end}-layer", "")) for end in _ENDS)
            port = self._ports.get(edge.get("from-layer", ""), {}).get(edge.get("from-port", ""))
            if source is None or target is None or port is None:
                raise DamagedIrError(f"an operator reads what no operator writes. {_AGAIN}")
            place = int(edge.get("to-port") or 0)
            places.setdefault(edge["to-layer"], []).append((place, source, port))
        for layer, sources in places.items():
            ordered = sorted(sources, key=lambda each: each[0])
            self._nodes[layer].sources = [(source, port) for _, source, port in ordered]


_ENDS = ("from", "to")


def _in_order(nodes: list[IrNode]) -> Iterator[IrNode]:
    """Operators, each behind what it reads, else as the file has them.

    Raises:
        DamagedIrError: Some read each other in a circle.
    """
    index = {id(node): place for place, node in enumerate(nodes)}
    waiting = [len(node.sources) for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for place, node in enumerate(nodes):
        for source, _ in node.sources:
            readers[index[id(source)]].append(place)
    ready = [place for place, count in enumerate(waiting) if not count]  # sorted, so a heap
    count = 0
    while ready:
        place = heapq.heappop(ready)
        count += 1
        yield nodes[place]
        for reader in readers[place]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if count < len(nodes):
        raise DamagedIrError(f"operators read each other in a circle. {_AGAIN}")
