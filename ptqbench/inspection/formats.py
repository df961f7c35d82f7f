"""Which files can be inspected, and what reads them."""

from __future__ import annotations

from pathlib import Path

from ptqbench.backends.onnx_format.onnx_read import check_file
from ptqbench.errors import UserError
from ptqbench.inspection.file_inspection import FileInspection

_OTHERS = {
    ".pt": "TorchScript is judged by ptqbench gate",
    ".pt2": "exported programs cannot be inspected yet",
    ".pte": "ExecuTorch programs cannot be inspected yet",
    ".bin": "it has the weights of an OpenVINO model, and the .xml beside it the structure",
}


def inspect_file(path: Path) -> FileInspection:
    """Look at a file without running it.

    Raises:
        UserError: It is missing, damaged, or of a kind that cannot be inspected.
    """
    ending = path.suffix.lower()
    if ending == ".xml":
        from ptqbench.inspection.ir_inspection import inspect_ir

        return inspect_ir(path)
    check_file(path)
    if ending == ".onnx":
        from ptqbench.inspection.onnx_inspection import inspect_onnx

        return inspect_onnx(path)
    reason = _OTHERS.get(ending, "only .onnx and .xml can be inspected so far")
    raise UserError(f"{path} cannot be inspected: {reason}. Name an .onnx file or an .xml file.")
