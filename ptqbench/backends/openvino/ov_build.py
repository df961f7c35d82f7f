"""Write the int8 and the float32 artifact of a model for OpenVINO."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.onnx_format.int8_export import OnnxReader, versions
from ptqbench.backends.openvino.ir_compaction import compact
from ptqbench.backends.openvino.ir_structure import weights_path
from ptqbench.backends.openvino.ov_file import CONTENT, METADATA
from ptqbench.backends.openvino.ov_import import import_openvino
from ptqbench.backends.openvino.ov_session import read_model
from ptqbench.backends.openvino.ov_simplification import simplify
from ptqbench.core.atomic import atomic_path
from ptqbench.errors import UserError

if TYPE_CHECKING:
    import onnx

    from ptqbench.backends.openvino.ov_backend import OpenVinoBackend

_TRIAL = "ptqbench.backends.openvino.ov_trial"
_ADVICE = (
    "The model is exported by torch.onnx and read by OpenVINO. Write {module} with operators that "
    "both know, keep it in float32 (keep_float in the recipe), or use another backend."
)


def reader(backend: OpenVinoBackend) -> OnnxReader:
    """How OpenVINO takes the models that are built for it."""
    return OnnxReader(backend, f"{_TRIAL}:run_any_size", f"{_TRIAL}:run_both_forms", save, _ADVICE)


def save(model: onnx.ModelProto, path: Path, info: ArtifactInfo) -> Artifact:
    """Write a model as two files, each whole or not at all.

    The file that is looked for appears last, and records a hash of the other one.

    Args:
        model: With all its weights inside.
        path: The file ``.xml``; the weights are beside it.
        info: What it shall record; its runtime is filled in.

    Raises:
        UserError: The folder cannot be written to, or the disk is full.
    """
    version = import_openvino().__version__.split("-")[0]
    info = dataclasses.replace(info, runtime=versions(f"OpenVINO {version}"))
    graph = simplify(read_model(model.SerializeToString()))
    graph.set_rt_info(json.dumps(dataclasses.asdict(info)), METADATA)
    try:
        with tempfile.TemporaryDirectory(prefix="ptqbench-") as folder:
            structure, weights = _serialized(graph, Path(folder))
        graph.set_rt_info(hashlib.sha256(weights).hexdigest(), CONTENT)
        with tempfile.TemporaryDirectory(prefix="ptqbench-") as folder:
            structure, _ = _serialized(graph, Path(folder))
        for target, content in ((weights_path(path), weights), (path, structure)):
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The artifact {path} cannot be written: {reason}.") from error
    return Artifact(path, info)


def _serialized(graph: Any, folder: Path) -> tuple[bytes, bytes]:
    """The contents of both files. float32 stays float32."""
    path = folder / "model.xml"
    import_openvino().save_model(graph, str(path), compress_to_fp16=False)
    return compact(path.read_bytes()), weights_path(path).read_bytes()
