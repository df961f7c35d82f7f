"""Read an ONNX model without executing any of it, or opening files outside its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.backends.onnx_format.external_data import check_external, external_tensors
from ptqbench.core.paths import exists, is_dir
from ptqbench.errors import UserError

if TYPE_CHECKING:
    import onnx

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
"""Operators of these domains come with the runtimes; any other needs code of the file's author."""


def check_file(path: Path) -> None:
    """Check that there is a file.

    Raises:
        UserError: It is missing, or a folder.
    """
    if not exists(path):
        raise refusal(path, "it does not exist. Check the path.")
    if is_dir(path):
        raise refusal(path, "it is a folder. Name the file in it.")


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX model that needs no foreign code.

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
        raise refusal(
            path,
            f"it needs custom operators ({', '.join(foreign[:3])}), whose code would have to "
            "be loaded. Export it with operators of ONNX alone.",
        )
    _check_opset(model, path)
    _validate(model, path)
    return model


def _parsed(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        with path.open("rb") as file:
            content = file.read()
    except OSError as error:
        raise refusal(path, f"{error.strerror or error}.") from None
    if not content:
        raise refusal(path, "it is empty. Export or copy it again.")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise refusal(
            path, "it is no ONNX model, or not complete. Export or copy it again."
        ) from None
    if not model.graph.node:
        raise refusal(path, "it has no operators. Export it again.")
    return model


def _check_opset(model: onnx.ModelProto, path: Path) -> None:
    """Check that the operators are of a release of ONNX that is known here.

    Raises:
        UserError: They are of a later one.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise refusal(
                path,
                f"it is written in opset {entry.version} of ONNX, and onnx {onnx.__version__} "
                f"knows up to {newest}. Export it with opset_version={newest} or lower, or "
                "install a later onnx and onnxruntime.",
            )


def _validate(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    try:
        # By its path, a model is checked along with the files that hold its weights.
        onnx.checker.check_model(str(path) if any(external_tensors(model)) else model)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise refusal(path, f"it is not a valid ONNX model ({reason}).") from None


def refusal(path: Path, reason: str) -> UserError:
    """The error that says why a file cannot be loaded."""
    return UserError(f"{path} cannot be loaded as an ONNX model: {reason}")
