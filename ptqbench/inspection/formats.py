"""Which files can be inspected, and what reads them."""

from __future__ import annotations

from pathlib import Path

from ptqbench.backends.onnx_format.onnx_read import check_file
from ptqbench.errors import UserError
from ptqbench.inspection.file_inspection import FileInspection

ENDINGS = (".onnx", ".xml")
"""Of the files that are read without their runtime."""
_WEIGHTS = ".bin"


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
    if ending == _WEIGHTS:
        raise UserError(
            f"{path} cannot be inspected: it has the weights of an OpenVINO model. Name the .xml "
            "beside it, which has the structure."
        )
    raise UserError(f"{path} cannot be inspected: it is neither an .onnx nor an .xml file.")
