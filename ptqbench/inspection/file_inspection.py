"""The inspection of a file: its layers by precision and what is found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ptqbench.inspection.file_layers import DYNAMIC, FLOAT, INT8, WEIGHTS, FileLayer, share_of
from ptqbench.inspection.findings import Finding

VERSION = 1
"""Of the form of `FileInspection.to_dict`."""
_VERSIONS = {"onnx": "opset", "openvino": "ir_version"}
"""What the version of a format is called."""


@dataclass(frozen=True)
class FileInspection:
    """What a file alone tells.

    Attributes:
        path: The file.
        format: ``onnx``, ``openvino``, or the runtime that reads it.
        version: The opset of ONNX, or the version of OpenVINO's format; None: it has none.
        size_bytes: Of all files that it consists of.
        producer: The tool that it says wrote it.
        layers: Convolutions and linear layers.
        operators: Numbers of all operators by kind.
        findings: What its user should know, the worst first.
    """

    path: Path
    format: str
    version: int | None
    size_bytes: int
    producer: str
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
            "format": self.format,
            "size_bytes": self.size_bytes,
            "producer": self.producer,
            **({} if self.version is None else {_VERSIONS[self.format]: self.version}),
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
