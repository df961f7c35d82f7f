"""Check that two files are an IR model that may be loaded, and read what it records.

Nothing of them is executed: the structure is read as XML, and of the weights only what is no
number is looked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptqbench.backends.artifact import ArtifactInfo, parse_info
from ptqbench.backends.openvino.ir_structure import (
    DamagedIrError,
    IrStructure,
    read_structure,
    refusal,
    weights_path,
)

METADATA, CONTENT = "ptqbench", "ptqbench_weights_sha256"
"""Keys of the model's information for the record of an artifact, and a hash of the weights."""
_FLOATS: Mapping[str, np.dtype[Any]] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),
    "f64": np.dtype("<f8"),
}


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
    structure = read_structure(path)
    try:
        _check_weights(structure, weights_path(path))
    except OSError as error:
        raise refusal(path, f"{error.strerror or error}.") from None
    except DamagedIrError as damage:
        raise refusal(path, str(damage)) from None
    text = structure.notes.get(METADATA)
    return None if text is None else parse_info(text, path)


def _check_weights(structure: IrStructure, path: Path) -> None:
    if not structure.weights_size:
        return
    content = path.read_bytes()
    recorded = structure.notes.get(CONTENT)
    if recorded is not None and recorded != hashlib.sha256(content).hexdigest():
        raise DamagedIrError(
            f"{path.name} is not the file that it was written with: damaged, or of another model."
        )
    for kind, offset, size in structure.constants:
        floats = _FLOATS.get(kind)
        if floats is None:
            continue
        values = np.frombuffer(content, floats, size // floats.itemsize, offset)
        if bool(np.isnan(values).any()):
            raise DamagedIrError(
                "some of its weights or scales are not numbers (NaN). Quantize it anew."
            )
