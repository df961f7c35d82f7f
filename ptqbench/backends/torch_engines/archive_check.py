"""Check that a file is TorchScript, and read what it records, without running any of it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ptqbench.backends.artifact import ArtifactInfo, parse_info
from ptqbench.backends.zip_archive import check_zip
from ptqbench.errors import UserError

METADATA = "ptqbench.json"
"""Name of the extra file inside the TorchScript archive."""
_SAVE = "Save it with torch.jit.save(torch.jit.freeze(torch.jit.trace(int8_model, example)), FILE)."
_LEGACY_PICKLE = b"\x80"
_PICKLED = (
    "it was written by torch.save, not by torch.jit.save: a state dict, or a pickled module, "
    "which was not opened because that could run its code"
)


def check_torchscript(path: Path) -> None:
    """Check that a file is TorchScript, and undamaged.

    The names in the archive are read and its checksums computed, which torch does not do:
    it loads a file with changed weights without complaint. Nothing is unpickled.

    Raises:
        UserError: The file is missing, damaged, or of another kind, which is named.
    """
    check_zip(
        path,
        lambda reason: UserError(f"{path} cannot be loaded as TorchScript: {reason}"),
        lambda start: f"{_not_an_archive(path, start)}. {_SAVE}",
        _other_kind,
    )


def read_info(path: Path) -> ArtifactInfo | None:
    """What a TorchScript file records about itself; None if ptqbench did not build it.

    Args:
        path: Checked by :func:`check_torchscript`.

    Raises:
        UserError: Another version of ptqbench built it, with metadata that this one does not
            know.
    """
    text = _extra_file(path, METADATA)
    return None if text is None else parse_info(text, path)


def _extra_file(path: Path, name: str) -> str | None:
    """An extra file that was saved with TorchScript, as text; None if there is none."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            if entry.partition("/")[2] == f"extra/{name}":
                return archive.read(entry).decode("utf-8", errors="replace")
    return None


def _not_an_archive(path: Path, start: bytes) -> str:
    if not start:
        return "it is empty"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "it is a safetensors file: weights without a model (--weights takes float32 ones)"
    if start.startswith(_LEGACY_PICKLE):
        return _PICKLED
    if path.suffix.lower() == ".onnx":
        return "it is an ONNX model, which only --backend onnxruntime loads"
    return "it is not a TorchScript archive"


def _other_kind(names: list[str]) -> str:
    """What an archive is if it is not TorchScript, and what to do."""
    files = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in files) and "constants.pkl" in files:
        return ""
    if "data.pkl" in files:
        return f"{_PICKLED}. {_SAVE}"
    if files & {"archive_format", "models/model.json", "serialized_exported_program.json"}:
        return "it is a program of torch.export. Let its name end in .pt2."
    return f"it is a zip archive without a TorchScript model in it. {_SAVE}"
