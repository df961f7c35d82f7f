"""Run what OpenVINO executes and record what its int8 layers read and write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ptqbench.backends.graph import Operator
from ptqbench.backends.integer_reference import ExactRun, LayerTraffic, QuantizedTensor
from ptqbench.backends.openvino.ov_graph import read_executed
from ptqbench.backends.openvino.ov_layers import FileLayer
from ptqbench.backends.openvino.ov_session import Request, compile_model, read_model
from ptqbench.core.phases import INSPECTION, Phases


def record_traffic(path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
    """Run a file and record the inputs and outputs of its int8 layers.

    The model is compiled with these values as further outputs. Its layers keep their kernels; but
    an addition that OpenVINO otherwise executes within a convolution is executed on its own,
    because the output of the convolution would not be there without that.

    Args:
        path: The file.
        images: ``N×C×H×W`` float32; all inputs and outputs are held in memory.
        phases: Where the forward pass is counted.
    """
    model = read_model(path)
    executed = read_executed(model)
    graph = executed.graph
    layers = [(operator, executed.layers[operator.value]) for operator in graph.int8_layers]
    pairs = [pair for pair in layers if _is_recordable(pair[1])]
    results = (output.get_node().input_value(0) for output in model.outputs)
    places = {_key(value): place for place, value in enumerate(results)}
    for _, layer in pairs:
        for value in (layer.value, layer.output.output if layer.output else None):
            if value is not None and _key(value) not in places:
                places[_key(value)] = len(model.outputs)
                model.add_outputs([value])
    try:
        request = Request(compile_model(model, 1))
        with (phases or Phases()).measure(INSPECTION, forward=True):
            recorded = request.run(images.numpy())
    except RuntimeError as error:
        return ExactRun(graph, (), str(error))
    return ExactRun(
        graph,
        tuple(_traffic(operator, layer, recorded, places) for operator, layer in pairs),
    )


def _is_recordable(layer: FileLayer) -> bool:
    """Whether a layer reads and writes integers of one scale."""
    return (
        layer.source is not None
        and layer.output is not None
        and layer.integers is not None
        and not layer.integers.transposed
        and not layer.turned
    )


def _key(value: Any) -> tuple[str, int]:
    return value.get_node().get_friendly_name(), value.get_index()


def _traffic(
    operator: Operator,
    layer: FileLayer,
    recorded: list[np.ndarray],
    places: dict[tuple[str, int], int],
) -> LayerTraffic:
    assert layer.source is not None and layer.output is not None
    rounded = layer.output
    read = torch.from_numpy(layer.source.integers(recorded[places[_key(layer.value)]]))
    written = torch.from_numpy(rounded.range.integers(recorded[places[_key(rounded.output)]]))
    assert layer.integers is not None
    if layer.integers.integers.dim() == 2:  # rows, which may become a map before they are rounded
        written = written.reshape(*read.shape[:-1], -1)
    zero = layer.source.zero_point
    ends = [size for pair in reversed(layer.uneven) for size in pair]
    if any(ends):
        read = F.pad(read.int(), ends, value=zero).to(read.dtype)
    return LayerTraffic(
        operator,
        QuantizedTensor(read, layer.source.scale, zero),
        QuantizedTensor(written, rounded.range.scale, rounded.range.zero_point),
    )
