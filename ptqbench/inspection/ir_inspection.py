"""The inspection of an OpenVINO model: two files, read without OpenVINO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ptqbench.backends.openvino.ir_structure import weights_path
from ptqbench.inspection.file_inspection import FileInspection
from ptqbench.inspection.ir_findings import findings_of
from ptqbench.inspection.ir_flow import IrFlow
from ptqbench.inspection.ir_layers import layers_of
from ptqbench.inspection.ir_view import IrView


def inspect_ir(path: Path) -> FileInspection:
    """Look at an IR file without running it.

    Raises:
        UserError: A file is missing or damaged, or it is of another kind.
    """
    view = IrView.of(path)
    flow = IrFlow.of(view)
    layers = layers_of(view, flow)
    weights = [weights_path(path)] if view.structure.weights_size else []
    return FileInspection(
        path=path,
        format="openvino",
        version=view.structure.version,
        size_bytes=sum(file.stat().st_size for file in (path, *weights)),
        producer=_producer(view.structure.notes),
        layers=layers,
        operators=dict(
            Counter(node.kind for node in view.nodes if node.kind != "Const").most_common()
        ),
        findings=findings_of(view, flow, layers),
    )


def _producer(notes: Mapping[str, str]) -> str:
    """The tools that a file says wrote it."""
    openvino = notes.get("Runtime_version", "").split("-")[0]
    tools = ["ptqbench"] if "ptqbench" in notes else []
    if any(key.startswith("nncf/") for key in notes):
        tools.append(f"NNCF {notes.get('nncf/version', '')}".strip())
    if openvino:
        tools.append(f"OpenVINO {openvino}")
    return ", ".join(tools)
