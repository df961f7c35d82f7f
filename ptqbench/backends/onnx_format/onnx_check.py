"""Check that a file is an ONNX model that may be loaded, and read what it records."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptqbench.backends.artifact import ArtifactInfo
from ptqbench.backends.onnx_format.external_data import check_external, external_tensors
from ptqbench.core.paths import exists, is_dir
from ptqbench.errors import UserError

if TYPE_CHECKING:
    import onnx

METADATA = "ptqbench"
"""Key of the model's metadata under which the record of an artifact is stored."""
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
"""Operators of these domains come with the runtimes; any other needs code of the file's author."""

_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QGemm": (1, 4, 7),
}
"""Where operators have scales among their inputs."""


def check_file(path: Path) -> None:
    """Check that there is a file.

    Raises:
        UserError: It is missing, or a folder.
    """
    if not exists(path):
        raise UserError(_sentence(path, "it does not exist. Check the path."))
    if is_dir(path):
        raise UserError(_sentence(path, "it is a folder. Name the file in it."))


def check_onnx(path: Path) -> onnx.ModelProto:
    """Check that a file is an ONNX model which runtimes can execute without foreign code.

    Nothing is executed, and no other file is opened.

    Returns:
        The model, without weights that lie in other files.

    Raises:
        UserError: The file is missing, damaged or of another kind; it refers to weights outside
            its folder, or needs operators that no runtime brings.
    """
    check_file(path)
    model = _parsed(path)
    check_external(model, path)
    foreign = sorted(
        {f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain not in _DOMAINS}
        - {f"{f.domain}::{f.name}" for f in model.functions}
    )
    if foreign:
        raise UserError(
            _sentence(
                path,
                f"it needs custom operators ({', '.join(foreign[:3])}), whose code would have to "
                "be loaded. Export it with operators of ONNX alone.",
            )
        )
    _check_opset(model, path)
    _validate(model, path)
    _check_scales(model, path)
    return model


def read_info(model: onnx.ModelProto, path: Path) -> ArtifactInfo | None:
    """What an ONNX model records about itself; None if ptqbench did not build it.

    Args:
        model: Of the file.
        path: Of the file, for messages.

    Raises:
        UserError: Another version of ptqbench built it, with metadata that this one does not
            know.
    """
    text = next((each.value for each in model.metadata_props if each.key == METADATA), None)
    if text is None:
        return None
    try:
        info = ArtifactInfo(**json.loads(text))
        for name, value in vars(info).items():
            types = {"calibration_images": int, "build": dict | None}.get(name, str)
            if not isinstance(value, types):
                raise TypeError(f"{name} is a {type(value).__name__}")
    except (ValueError, TypeError, RecursionError):
        raise UserError(
            f"{path} carries metadata that this version of ptqbench does not know. Build it "
            "again with ptqbench.quantize."
        ) from None
    return info


def write_info(model: onnx.ModelProto, info: ArtifactInfo) -> None:
    """Store what an artifact records about itself in its model, in place."""
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(asdict(info))
    model.producer_name, model.producer_version = METADATA, ""


def _parsed(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        with path.open("rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(_sentence(path, f"{error.strerror or error}.")) from None
    if not content:
        raise UserError(_sentence(path, "it is empty. Export or copy it again."))
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise UserError(
            _sentence(path, "it is no ONNX model, or not complete. Export or copy it again.")
        ) from None
    if not model.graph.node:
        raise UserError(_sentence(path, "it has no operators. Export it again."))
    return model


def _validate(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    try:
        # By its path, a model is checked along with the files that hold its weights.
        onnx.checker.check_model(str(path) if any(external_tensors(model)) else model)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(_sentence(path, f"it is not a valid ONNX model ({reason}).")) from None


def _check_opset(model: onnx.ModelProto, path: Path) -> None:
    """Check that the operators are of a release of ONNX that is known here.

    Raises:
        UserError: They are of a later one.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise UserError(
                _sentence(
                    path,
                    f"it is written in opset {entry.version} of ONNX, and onnx {onnx.__version__} "
                    f"knows up to {newest}. Export it with opset_version={newest} or lower, or "
                    "install a later onnx and onnxruntime.",
                )
            )


def _check_scales(model: onnx.ModelProto, path: Path) -> None:
    """Check that every scale is a finite number, and not negative.

    Raises:
        UserError: One is not.
    """
    from onnx import numpy_helper

    inside = {each.name: each for each in model.graph.initializer if not each.data_location}
    for node in model.graph.node:
        for place in _SCALES.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            if name not in inside:
                continue
            scales = numpy_helper.to_array(inside[name])
            wrong = scales[~(np.isfinite(scales) & (scales >= 0))]
            if wrong.size:
                raise UserError(
                    _sentence(
                        path,
                        f"the scale {name} of {node.op_type} {node.name or node.output[0]} is "
                        f"{wrong.reshape(-1)[0]}, no number that a step can have. Quantize it "
                        "again, with images that are no empty or damaged ones.",
                    )
                )


def _sentence(path: Path, reason: str) -> str:
    return f"{path} cannot be loaded as an ONNX model: {reason}"
