"""Check that a file is an ONNX model that may be loaded, and read what it records."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptqbench.backends.artifact import ArtifactInfo, parse_info
from ptqbench.backends.onnx_format.onnx_read import check_file, read_onnx, refusal

if TYPE_CHECKING:
    import onnx

__all__ = ["check_file", "check_onnx", "read_info", "write_info"]

METADATA = "ptqbench"
"""Key of the model's metadata under which the record of an artifact is stored."""

_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QGemm": (1, 4, 7),
}
"""Where operators have scales among their inputs."""


def check_onnx(path: Path) -> onnx.ModelProto:
    """Check that a file is an ONNX model which runtimes can execute without foreign code.

    Nothing is executed, and no other file is opened.

    Returns:
        The model, without weights that lie in other files.

    Raises:
        UserError: The file is missing, damaged or of another kind; it refers to weights outside
            its folder, or needs operators that no runtime brings.
    """
    model = read_onnx(path)
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
    return None if text is None else parse_info(text, path)


def write_info(model: onnx.ModelProto, info: ArtifactInfo) -> None:
    """Store what an artifact records about itself in its model, in place."""
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(asdict(info))
    model.producer_name, model.producer_version = METADATA, ""


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
                raise refusal(
                    path,
                    f"the scale {name} of {node.op_type} {node.name or node.output[0]} is "
                    f"{wrong.reshape(-1)[0]}, no number that a step can have. Quantize it "
                    "again, with images that are no empty or damaged ones.",
                )
