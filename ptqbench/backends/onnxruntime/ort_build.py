"""Write the int8 and the float32 artifact of a model for ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.onnx_format.int8_export import OnnxReader, versions
from ptqbench.backends.onnx_format.onnx_check import write_info
from ptqbench.core.atomic import atomic_path
from ptqbench.errors import UserError

if TYPE_CHECKING:
    import onnx

    from ptqbench.backends.onnxruntime.ort_backend import OrtBackend

_TRIAL = "ptqbench.backends.onnxruntime.ort_trial"
_ADVICE = (
    "The model is exported by torch.onnx. Write {module} with operators that it knows, keep it in "
    "float32 (keep_float in the recipe), or use another backend."
)


def reader(backend: OrtBackend) -> OnnxReader:
    """How ONNX Runtime takes the models that are built for it."""
    return OnnxReader(backend, f"{_TRIAL}:run_literally", f"{_TRIAL}:run_optimized", save, _ADVICE)


def save(model: onnx.ModelProto, path: Path, info: ArtifactInfo) -> Artifact:
    """Write a model whole or not at all.

    Args:
        model: With all its weights inside.
        path: The file.
        info: What it shall record; its runtime is filled in.

    Raises:
        UserError: The folder cannot be written to, or the disk is full.
    """
    import onnxruntime

    info = dataclasses.replace(info, runtime=versions(f"ONNX Runtime {onnxruntime.__version__}"))
    write_info(model, info)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The artifact {path} cannot be written: {reason}.") from error
    return Artifact(path, info)
