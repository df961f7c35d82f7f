"""The inspection of a file: its layers by precision and what is found in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.backends.onnx_format.external_data import data_files, external_tensors
from ptqbench.backends.onnx_format.onnx_read import check_file, read_onnx
from ptqbench.errors import UserError
from ptqbench.inspection.file_layers import DYNAMIC, FLOAT, INT8, WEIGHTS, FileLayer, layers_of
from ptqbench.inspection.findings import Finding, findings_of, share_of
from ptqbench.inspection.onnx_view import OnnxView

if TYPE_CHECKING:
    import onnx

VERSION = 1
"""Of the form of `FileInspection.to_dict`."""
_LATER = {
    ".pt": "TorchScript is judged by ptqbench gate",
    ".xml": "OpenVINO IR cannot be inspected yet",
    ".pt2": "exported programs cannot be inspected yet",
    ".pte": "ExecuTorch programs cannot be inspected yet",
}


@dataclass(frozen=True)
class FileInspection:
    """What a file alone tells.

    Attributes:
        path: The file.
        size_bytes: Of all files that it consists of.
        producer: The tool that it says wrote it.
        opset: Of ONNX.
        layers: Convolutions and linear layers.
        operators: Numbers of all operators by kind.
        findings: What its user should know, the worst first.
    """

    path: Path
    size_bytes: int
    producer: str
    opset: int
    layers: tuple[FileLayer, ...]
    operators: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def has_errors(self) -> bool:
        """Whether the file computes nonsense."""
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def precisions(self) -> dict[str, tuple[int, float | None]]:
        """Number of layers and share of the multiply-adds by precision; those that occur."""
        groups = {
            precision: [layer for layer in self.layers if layer.precision == precision]
            for precision in (INT8, DYNAMIC, WEIGHTS, FLOAT)
        }
        return {
            precision: (len(group), share_of(group, self.layers))
            for precision, group in groups.items()
            if group
        }

    def to_dict(self) -> dict[str, object]:
        """Return the inspection as plain values."""
        return {
            "inspection_version": VERSION,
            "file": str(self.path),
            "format": "onnx",
            "size_bytes": self.size_bytes,
            "producer": self.producer,
            "opset": self.opset,
            "precisions": {
                name: {"layers": count, "share_of_multiply_adds": share}
                for name, (count, share) in self.precisions.items()
            },
            "operators": dict(self.operators),
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "precision": layer.precision,
                    "multiply_adds": layer.multiply_adds,
                    "weight_scales": layer.scales,
                    "signed_input": layer.signed,
                }
                for layer in self.layers
            ],
            "findings": [asdict(finding) for finding in self.findings],
        }


def inspect_file(path: Path) -> FileInspection:
    """Look at a file without running it.

    Raises:
        UserError: It is missing, damaged, or of a kind that cannot be inspected.
    """
    check_file(path)
    if path.suffix.lower() != ".onnx":
        later = _LATER.get(path.suffix.lower(), "only .onnx can be inspected so far")
        raise UserError(f"{path} cannot be inspected: {later}. Name an .onnx file.")
    _check_installation()
    model = _complete(path)
    view = OnnxView.of(model)
    layers = layers_of(view)
    return FileInspection(
        path=path,
        size_bytes=sum(file.stat().st_size for file in (path, *data_files(path))),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opset=max(
            (o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0
        ),
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
