"""Open the sizes of a program, and write it as a file with the record of an artifact."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.executorch.et_file import CONTENT, METADATA, content_hash
from ptqbench.backends.executorch.et_import import exporter
from ptqbench.backends.executorch.et_program import read_program
from ptqbench.core.atomic import atomic_path
from ptqbench.errors import UserError

LARGEST = 1024
"""Height and width of the largest images that a program with open sizes takes."""


def opened(content: bytes) -> bytes | None:
    """Let a program take images of other sizes, one at a time.

    XNNPACK computes the sizes in its graph from those of the input. So all that it takes is to
    say that the input's are open, if nothing but one graph of XNNPACK is executed.

    Returns:
        None if other operators are executed, which have fixed sizes.
    """
    program = read_program(content)
    if [call.delegate for call in program.calls] != [0] or len(program.inputs) != 1:
        return None
    with exporter():
        from executorch.exir.schema import TensorShapeDynamism

        file = parsed(content)
        plan = file.program.execution_plan[0]
        tensor = plan.values[plan.inputs[0]].val
        if len(tensor.sizes) != 4:
            return None
        tensor.shape_dynamism = TensorShapeDynamism.DYNAMIC_BOUND
        tensor.sizes = [*tensor.sizes[:2], LARGEST, LARGEST]
        # Memory of that size is not needed: it reads the images where they are.
        tensor.allocation_info = None
        return serialized(file)


def save(content: bytes, path: Path, info: ArtifactInfo) -> Artifact:
    """Write a program, whole or not at all.

    Args:
        content: The program.
        path: The file.
        info: What it shall record; its runtime is filled in.

    Raises:
        UserError: The folder cannot be written to, or the disk is full.
    """
    name = f"ExecuTorch {version('executorch').split('+')[0]}, torch {torch.__version__}"
    info = dataclasses.replace(info, runtime=name)
    notes = {
        METADATA: json.dumps(dataclasses.asdict(info)).encode(),
        CONTENT: content_hash(read_program(content).data).encode(),
    }
    with exporter():
        whole = _with_data(content, notes)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(whole)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The artifact {path} cannot be written: {reason}.") from error
    return Artifact(path, info)


def _with_data(content: bytes, notes: Mapping[str, bytes]) -> bytes:
    from executorch.exir._serialize._named_data_store import NamedDataStoreOutput
    from executorch.exir._serialize.data_serializer import DataEntry

    file = parsed(content)
    data = file.named_data or NamedDataStoreOutput([], {}, {})
    for name, value in notes.items():
        data.pte_data[name] = DataEntry(len(data.buffers), 1, None)
        data.buffers.append(value)
    file.named_data = data
    return serialized(file)


def parsed(content: bytes) -> Any:
    """A program as the exporter has it."""
    from executorch.exir._serialize import _deserialize_pte_binary

    return _deserialize_pte_binary(content)


def serialized(file: Any) -> bytes:
    """The bytes of a program, weights beside the structure."""
    from executorch.exir._serialize import _serialize_pte_binary

    return bytes(_serialize_pte_binary(file, extract_delegate_segments=True))
