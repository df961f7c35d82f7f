"""OpenVINO files as NNCF's documentation makes them, and copies of them with a change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from ptqbench.backends.openvino.ov_import import import_openvino


def quantized(model: nn.Module, images: Tensor, path: Path, **options: Any) -> Path:
    """Convert a network and quantize it with NNCF.

    Args:
        model: Evaluation mode.
        images: Calibration images ``N×C×H×W``.
        path: The int8 file, ``.xml``.
        options: Of ``nncf.AdvancedQuantizationParameters``.
    """
    openvino = import_openvino()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNCF_CI", "1")  # else it reports its use
        nncf = pytest.importorskip("nncf", reason="nncf, which makes the files, is not installed")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    shape = [-1, *images.shape[1:]]
    converted = openvino.convert_model(model, example_input=images[:1], input=shape)
    dataset = nncf.Dataset(list(images.split(1)), lambda image: image.numpy())
    advanced = nncf.AdvancedQuantizationParameters(**options) if options else None
    openvino.save_model(nncf.quantize(converted, dataset, advanced_parameters=advanced), path)
    return path


def changed(source: Path, path: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a file with a change of its model."""
    openvino = import_openvino()
    model = openvino.Core().read_model(source)
    change(model)
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def of_kind(model: Any, *kinds: str) -> list[Any]:
    """The operators of some kinds, in order."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() in kinds]


def put(node: Any, value: np.ndarray) -> None:
    """Replace an operator by a constant."""
    from openvino import opset13

    constant = opset13.constant(value)
    constant.set_friendly_name(node.get_friendly_name())
    for target in node.output(0).get_target_inputs():
        target.replace_source_output(constant.output(0))


def integers_of(layer: Any) -> tuple[Any, Any]:
    """The constants of a layer's integer weights, and of their scales."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() == "Reshape":
        node = node.input_value(0).get_node()
    assert node.get_type_name() == "Multiply"
    convert, scales = (node.input_value(place).get_node() for place in (0, 1))
    while scales.get_type_name() != "Constant":
        scales = scales.input_value(0).get_node()
    return convert.input_value(0).get_node(), scales
