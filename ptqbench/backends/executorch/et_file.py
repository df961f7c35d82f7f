"""Check that a ``.pte`` file may be loaded, without running any of it, and read what it records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ptqbench.backends.artifact import ArtifactInfo, parse_info
from ptqbench.backends.executorch.et_flatbuffer import MalformedError
from ptqbench.backends.executorch.et_program import XNNPACK, Program, read_program
from ptqbench.backends.executorch.xnnpack_graph import XnnGraph, read_graph
from ptqbench.core.names import first_few
from ptqbench.core.paths import exists, is_dir
from ptqbench.errors import UserError

METADATA, CONTENT = "ptqbench", "ptqbench_sha256"
"""Names in the file of the record of an artifact, and of a hash of its weights."""


def check_pte(path: Path) -> ArtifactInfo | None:
    """Check a file.

    Returns:
        What it records about itself; None if ptqbench did not build it.

    Raises:
        UserError: It is missing, damaged or of another kind; it needs another file, or a backend
            of ExecuTorch other than XNNPACK; or its weights are not those that it was written with.
    """
    if not exists(path):
        raise UserError(_sentence(path, "it does not exist. Check the path."))
    if is_dir(path):
        raise UserError(_sentence(path, "it is a folder. Name the file in it."))
    try:
        content = path.read_bytes()
        if not content:
            raise UserError(_sentence(path, "it is empty. Export or copy it again."))
        program = read_program(content)
        _check_delegates(program, path)
    except OSError as error:
        raise UserError(_sentence(path, f"{error.strerror or error}.")) from None
    except MalformedError as error:
        raise UserError(_sentence(path, f"{error}. Export or copy it again.")) from None
    if CONTENT in program.data:
        recorded = bytes(program.data[CONTENT]).decode("utf-8", "replace")
        if recorded != content_hash(program.data):
            raise UserError(
                _sentence(path, "its weights are not those that it was written with: damaged.")
            )
    if METADATA not in program.data:
        return None
    return parse_info(bytes(program.data[METADATA]).decode("utf-8", "replace"), path)


def content_hash(data: Mapping[str, memoryview]) -> str:
    """A hash of the named contents of a file, except for what ptqbench records in it."""
    digest = hashlib.sha256()
    for name in sorted(set(data) - {METADATA, CONTENT}):
        digest.update(name.encode())
        digest.update(data[name])
    return digest.hexdigest()


def _check_delegates(program: Program, path: Path) -> None:
    if program.external:
        names = first_few(program.external)
        raise UserError(
            _sentence(path, f"its weights lie in another file ({names}). Export it as one file.")
        )
    others = sorted({each.name for each in program.delegates} - {XNNPACK})
    if others:
        raise UserError(
            _sentence(
                path,
                f"parts of it are for {first_few(others)}, which is not executed here. Lower it "
                "with XnnpackPartitioner.",
            )
        )
    for delegate in program.delegates:
        graph = read_graph(delegate.payload, program.data)
        if not _is_finite(graph):
            raise UserError(
                _sentence(
                    path, "some of its weights or scales are not numbers (NaN). Quantize it anew."
                )
            )


def _is_finite(graph: XnnGraph) -> bool:
    arrays = [value.scales for value in graph.values.values()]
    arrays += [
        value.constant
        for value in graph.values.values()
        if value.constant is not None and value.constant.dtype.kind == "f"
    ]
    return not any(bool(np.isnan(array).any()) for array in arrays)


def _sentence(path: Path, reason: str) -> str:
    return f"{path} cannot be loaded as a program of ExecuTorch: {reason}"
