"""Check that a file is a program of ``torch.export``, and read it without unpickling anything.

``torch.export.load`` unpickles example inputs and some constants, and runs what a package of
AOTInductor brings along. Here the structure is read from JSON and the weights from raw bytes; a
file that has more than these is refused.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptqbench.backends.artifact import ArtifactInfo, parse_info
from ptqbench.backends.zip_archive import check_zip
from ptqbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

METADATA = "ptqbench.json"
"""Name of the extra file inside the archive."""
SCHEMA = 8
"""Version of the structure that is known: torch 2.6 to 2.13 write it."""
_MODELS, _WEIGHTS, _CONSTANTS = "models/", "data/weights/", "data/constants/"
_SILENT = ("archive_format", "archive_version", "byteorder", "version", "extra/", ".data/")
_NATIVE = ("data/aotinductor/", "data/executorch/")
_CODE = (".so", ".cpp", ".dll", ".dylib", ".o", ".a", ".cubin", ".py", ".pyc")
_LARGEST_JSON = 2**28
"""Bytes; the structure of the largest networks takes some millions."""
_DTYPES = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16"},
    **{7: "float32", 8: "float64", 12: "bool", 13: "bfloat16"},
}
_SAVE = "Save it with torch.export.save(torch.export.export(int8_model, (example,)), FILE)."


def dtype_of(number: int) -> Any:
    """The torch dtype that a number stands for.

    Raises:
        ValueError: It stands for none that is used here.
    """
    import torch

    if number not in _DTYPES:
        raise ValueError(f"values of the type with number {number}")
    return getattr(torch, _DTYPES[number])


class Pt2Archive:
    """A file of ``torch.export.save``, opened.

    Args:
        source: The file, or its content, which is not checked.

    Raises:
        UserError: It is missing, damaged, of another kind, or has parts that can run code.
    """

    def __init__(self, source: Path | bytes) -> None:
        self.path = source if isinstance(source, Path) else Path("program.pt2")
        if isinstance(source, Path):
            check_zip(source, self.error, lambda _: f"it is no archive. {_SAVE}", _other_kind)
        self._archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        names = self._archive.namelist()
        self._members = {name.partition("/")[2]: name for name in names}
        self.program = self._json(self._only_model())

    def error(self, reason: str) -> UserError:
        """An error that names the file."""
        return UserError(f"{self.path} cannot be loaded as a program of torch.export: {reason}")

    def info(self) -> ArtifactInfo | None:
        """What the file records about itself; None if ptqbench did not build it.

        Raises:
            UserError: Another version of ptqbench built it.
        """
        name = self._members.get(f"extra/{METADATA}")
        if name is None:
            return None
        return parse_info(self._read(name).decode("utf-8", errors="replace"), self.path)

    def tensors(self) -> dict[str, Tensor]:
        """Weights and constants by name.

        Raises:
            UserError: One is missing or shorter than it should be, or a scale is no number.
        """
        return dict(self._tensors())

    def _read(self, name: str) -> bytes:
        return self._archive.read(name)

    def _json(self, name: str) -> Mapping[str, Any]:
        try:
            entry = self._archive.getinfo(self._members[name])
            if entry.file_size > _LARGEST_JSON:
                raise self.error(f"its part {name} takes {entry.file_size:,} bytes. Save it again.")
            content = json.loads(self._archive.read(entry))
        except (KeyError, ValueError, RecursionError):
            raise self.error(f"its part {name} is missing or damaged. Save it again.") from None
        if not isinstance(content, dict):
            raise self.error(f"its part {name} is damaged. Save it again.")
        return content

    def _only_model(self) -> str:
        models = [name for name in self._members if name.startswith(_MODELS)]
        if len(models) > 1:
            raise self.error(f"it has {len(models)} programs in it. Save one of them in a file.")
        return models[0]

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        model = Path(self._only_model()).stem
        for folder, kind in ((_WEIGHTS, "weights"), (_CONSTANTS, "constants")):
            config = f"{folder}{model}_{kind}_config.json"
            if config not in self._members:
                raise self.error(
                    f"its {kind} are pickled, or missing. Save it again with torch 2.9 or newer."
                )
            for name, payload in self._json(config).get("config", {}).items():
                yield name, self._tensor(name, folder, payload)

    def _tensor(self, name: str, folder: str, payload: Mapping[str, Any]) -> Tensor:
        import torch

        meta, place = payload.get("tensor_meta"), f"{folder}{payload.get('path_name')}"
        if payload.get("use_pickle") or meta is None:
            raise self.error(f"{name} is pickled, which could run code. Save plain tensors alone.")
        if place not in self._members or "custom_obj" in place or "opaque_obj" in place:
            raise self.error(f"{name} is missing in it, or no tensor. Save it again.")
        try:
            dtype = dtype_of(int(meta["dtype"]))
            sizes = [int(size["as_int"]) for size in meta["sizes"]]
            strides = [int(stride["as_int"]) for stride in meta["strides"]]
            offset = int(meta["storage_offset"]["as_int"])
        except (KeyError, TypeError, ValueError):
            raise self.error(f"the shape or the type of {name} is not known.") from None
        content = bytearray(self._read(self._members[place]))
        last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        if math.prod(sizes) == 0:
            return torch.empty(sizes, dtype=dtype)
        if min(*strides, offset, 0) < 0 or (last + 1) * dtype.itemsize > len(content):
            raise self.error(f"{name} is not complete. Copy or save it again.")
        flat = torch.frombuffer(content, dtype=dtype)
        return torch.as_strided(flat, sizes, strides, offset)


def _other_kind(members: list[str]) -> str:
    """What an archive is if it is no program that may be opened; empty if it is one."""
    names = {name.partition("/")[2] for name in members}
    native = [n for n in names if n.startswith(_NATIVE) or n.lower().endswith(_CODE)]
    if native:
        return (
            f"it has native code for a CPU in it ({sorted(native)[0]}), as AOTInductor packs it, "
            "which would run when the file is loaded. Save the quantized program itself: "
            "torch.export.save."
        )
    if "serialized_exported_program.json" in names:
        return (
            "a version of torch before 2.7 wrote it, which pickled its weights. Load it with that "
            "version, and save it with a newer one."
        )
    if not any(name.startswith(_MODELS) for name in names):
        return f"it is a zip archive without such a program in it. {_SAVE}"
    expected = (_MODELS, _WEIGHTS, _CONSTANTS, "data/sample_inputs/", *_SILENT)
    if strange := sorted(name for name in names if name and not name.startswith(expected)):
        return f"it has parts that are not known ({', '.join(strange[:3])}), and was not opened."
    return ""


def check_pt2(path: Path) -> ArtifactInfo | None:
    """Check a file without running any of it, and read what it records about itself.

    Returns:
        None if ptqbench did not build it.

    Raises:
        UserError: It is missing, damaged, of another kind, has parts that can run code, operators
            that are not torch's own, or weights that are not numbers.
    """
    import torch

    from ptqbench.backends.inductor.pt2_program import read_program

    archive = Pt2Archive(path)
    version = archive.program.get("schema_version", {})
    if not isinstance(version, dict) or version.get("major") != SCHEMA:
        written = archive.program.get("torch_version", "another version")
        raise archive.error(
            f"torch {written} wrote it in a form that is not known. Save it with torch "
            f"{torch.__version__}."
        )
    info = archive.info()
    program = read_program(archive)
    for name, value in program.tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise archive.error(
                f"{name} has values that are not numbers: scales or weights that were never "
                "computed. Quantize the model again."
            )
    return info
