"""Check that two files are an IR model that may be loaded, and read what it records.

Nothing of them is executed: the structure is read as XML, and of the weights only what is no
number is looked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from ptqbench.backends.artifact import ArtifactInfo, parse_info
from ptqbench.core.paths import exists, is_dir
from ptqbench.errors import UserError

METADATA, CONTENT = "ptqbench", "ptqbench_weights_sha256"
"""Keys of the model's information for the record of an artifact, and a hash of the weights."""
_OPSET = re.compile(r"opset\d+")
"""Operators of these sets come with OpenVINO; any other needs code of the file's author."""
_FLOATS: Mapping[str, np.dtype[Any]] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),
    "f64": np.dtype("<f8"),
}


def weights_path(path: Path) -> Path:
    """Where the weights of a file lie: beside it, in a file of the same name."""
    return path.with_suffix(".bin")


@dataclass
class _Structure:
    """What the XML file says.

    Attributes:
        root: The outermost element and its version.
        operators: Their number.
        foreign: Operators of no set that comes with OpenVINO.
        constants: Type, offset and size in bytes of each constant.
        notes: Information on the whole model, by key.
    """

    root: tuple[str, int] = ("", 0)
    operators: int = 0
    foreign: set[str] = field(default_factory=set)
    constants: list[tuple[str, int, int]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


class _Refused(Exception):
    """The file must not, or cannot, be read; carries the reason."""


def check_ir(path: Path) -> ArtifactInfo | None:
    """Check both files of a model.

    Args:
        path: The file ``.xml``.

    Returns:
        What it records about itself; None if ptqbench did not build it.

    Raises:
        UserError: A file is missing, damaged or of another kind; it needs operators that OpenVINO
            does not bring; or the weights are not those that the structure was written with.
    """
    if not exists(path):
        raise UserError(_sentence(path, "it does not exist. Check the path."))
    if is_dir(path):
        raise UserError(_sentence(path, "it is a folder. Name the file in it."))
    try:
        structure = _read(path)
        _check_weights(structure, weights_path(path))
    except OSError as error:
        raise UserError(_sentence(path, f"{error.strerror or error}.")) from None
    except _Refused as refusal:
        raise UserError(_sentence(path, str(refusal))) from None
    text = structure.notes.get(METADATA)
    return None if text is None else parse_info(text, path)


def _read(path: Path) -> _Structure:
    structure, stack = _Structure(), list[str]()

    def start(tag: str, attributes: dict[str, str]) -> None:
        _take(structure, stack, tag, attributes)
        stack.append(tag)

    def refuse(*_: object) -> None:
        # Entities can be made to expand without end, and to read other files.
        raise _Refused("it declares a document type, which IR files do not have.")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: stack.pop()
    parser.StartDoctypeDeclHandler = refuse
    content = path.read_bytes()
    if not content:
        raise _Refused("it is empty. Convert or copy it again.")
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError) as error:
        raise _Refused(
            f"it is no XML, or not complete ({error}). Convert or copy it again."
        ) from None
    name, version = structure.root
    if name != "net" or version < 10 or not structure.operators:
        raise _Refused(
            "it is XML, but no model of OpenVINO with operators of version 10 or later. Convert "
            "the model again: openvino.save_model."
        )
    if structure.foreign:
        raise _Refused(
            f"it needs custom operators ({', '.join(sorted(structure.foreign)[:3])}), whose code "
            "would have to be loaded. Convert it with operators of OpenVINO alone."
        )
    return structure


def _take(structure: _Structure, stack: list[str], tag: str, attributes: dict[str, str]) -> None:
    """Keep what matters of one element."""
    if not stack:
        structure.root = (tag, int(attributes.get("version") or 0))
    elif tag == "layer":
        structure.operators += 1
        kind, opset = attributes.get("type", ""), attributes.get("version", "")
        if not _OPSET.fullmatch(opset):
            structure.foreign.add(f"{opset}::{kind}")
    elif tag == "data" and "offset" in attributes and "size" in attributes:
        place = int(attributes["offset"]), int(attributes["size"])
        structure.constants.append((attributes.get("element_type", ""), *place))
    elif stack == ["net", "rt_info"] and "value" in attributes:
        structure.notes[attributes.get("name") or tag] = attributes["value"]


def _check_weights(structure: _Structure, path: Path) -> None:
    needed = max((offset + size for _, offset, size in structure.constants), default=0)
    if min((min(each[1:]) for each in structure.constants), default=0) < 0:
        raise _Refused("a constant lies at a negative place. Convert or copy it again.")
    if not needed:
        return
    if not exists(path) or is_dir(path):
        raise _Refused(f"the file with its weights, {path.name}, is not beside it.")
    content = path.read_bytes()
    if len(content) < needed:
        raise _Refused(
            f"{path.name} has {len(content):,} bytes, but its weights take {needed:,}: it is not "
            "complete, or of another model."
        )
    recorded = structure.notes.get(CONTENT)
    if recorded is not None and recorded != hashlib.sha256(content).hexdigest():
        raise _Refused(
            f"{path.name} is not the file that it was written with: damaged, or of another model."
        )
    for kind, offset, size in structure.constants:
        floats = _FLOATS.get(kind)
        if floats is None:
            continue
        values = np.frombuffer(content, floats, size // floats.itemsize, offset)
        if bool(np.isnan(values).any()):
            raise _Refused("some of its weights or scales are not numbers (NaN). Quantize it anew.")


def _sentence(path: Path, reason: str) -> str:
    return f"{path} cannot be loaded as an OpenVINO model: {reason}"
