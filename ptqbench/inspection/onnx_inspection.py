"""The inspection of an ONNX model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.backends.onnx_format.external_data import data_files, external_tensors
from ptqbench.backends.onnx_format.onnx_read import read_onnx
from ptqbench.errors import UserError
from ptqbench.inspection.file_inspection import FileInspection
from ptqbench.inspection.onnx_findings import findings_of
from ptqbench.inspection.onnx_layers import layers_of
from ptqbench.inspection.onnx_view import OnnxView

if TYPE_CHECKING:
    import onnx


def inspect_onnx(path: Path) -> FileInspection:
    """Look at an ONNX file without running it.

    Raises:
        UserError: It is missing or damaged, or onnx is not installed.
    """
    _check_installation()
    model = _complete(path)
    view = OnnxView.of(model)
    layers = layers_of(view)
    return FileInspection(
        path=path,
        format="onnx",
        version=max(
            (o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0
        ),
        size_bytes=sum(file.stat().st_size for file in (path, *data_files(path))),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        layers=layers,
        operators=dict(Counter(node.op_type for node in view.nodes).most_common()),
        findings=findings_of(view, layers),
    )


def _complete(path: Path) -> onnx.ModelProto:
    """The model with the weights of other files."""
    model = read_onnx(path)
    if any(external_tensors(model)):
        import onnx

        onnx.external_data_helper.load_external_data_for_model(model, str(path.resolve().parent))
    return model


def _check_installation() -> None:
    try:
        import onnx
    except Exception as error:  # a broken installation raises anything
        raise UserError(
            f"onnx, which reads the file, cannot be imported ({error}). pip install "
            "'ptqbench[onnx]' installs it."
        ) from None
    del onnx
