"""Run what ONNX Runtime executes and record what its int8 layers read and write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ptqbench.backends.graph import Operator
from ptqbench.backends.integer_reference import ExactRun, LayerTraffic, QuantizedTensor
from ptqbench.backends.onnx_format.onnx_graph import constants
from ptqbench.backends.onnx_format.qdq_graph import fused_activations
from ptqbench.backends.onnxruntime.executed_graph import (
    INT8_LAYERS,
    is_channels_last,
    optimized_model,
    read_executed,
    uneven_pads,
)
from ptqbench.backends.onnxruntime.ort_errors import reason_of
from ptqbench.backends.onnxruntime.ort_session import LITERAL, create_session
from ptqbench.core.phases import INSPECTION, Phases

if TYPE_CHECKING:
    import onnx


def record_traffic(path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
    """Run a file and record the inputs and outputs of its int8 layers.

    The optimized graph itself runs, with its own kernels; it only returns more than before.

    Args:
        path: The file.
        images: ``N×C×H×W`` float32; all inputs and outputs are held in memory.
        phases: Where the forward pass is counted.
    """
    import onnx
    from onnx import TensorProto, helper

    model = optimized_model(path)
    graph = read_executed(model, fused_activations(onnx.load(path)))
    layers = {layer.value: layer for layer in graph.int8_layers}
    nodes = [n for n in model.graph.node if n.op_type in INT8_LAYERS and n.output[0] in layers]
    present = {value.name for value in model.graph.output}
    values = constants(model)
    for node in nodes:
        for name, zero_point in ((node.input[0], node.input[2]), (node.output[0], None)):
            if name in present or name in values:
                continue
            signed = zero_point in values and values[zero_point].dtype == np.int8
            kind = TensorProto.INT8 if signed else TensorProto.UINT8
            if zero_point is None:
                kind = _output_type(node, values)
            model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
            present.add(name)
    try:
        session = create_session(model.SerializeToString(), 1, optimizations=LITERAL)
        with (phases or Phases()).measure(INSPECTION, forward=True):
            recorded = _recorded(session, images)
    except Exception as error:  # the runtime has no common base of its errors
        return ExactRun(graph, (), reason_of(error))
    return ExactRun(
        graph,
        tuple(
            traffic
            for node in nodes
            if (traffic := _traffic(node, layers[node.output[0]], recorded, values)) is not None
        ),
    )


def _recorded(session: Any, images: Tensor) -> dict[str, Any]:
    """All outputs of a session by name; a file whose number of images is fixed runs repeatedly."""
    source = session.get_inputs()[0]
    names = [output.name for output in session.get_outputs()]
    fixed = source.shape[0]
    several = isinstance(fixed, int) and 0 < fixed < len(images)
    parts = [part for part in images.split(fixed) if len(part) == fixed] if several else [images]
    runs = [session.run(names, {source.name: part.numpy()}) for part in parts]
    return {name: np.concatenate(values) for name, *values in zip(names, *runs, strict=True)}


def _output_type(node: onnx.NodeProto, values: dict[str, Any]) -> int:
    """The type that a layer writes: that of its output's zero point, or float32 without one."""
    from onnx import TensorProto

    place = 8 if node.op_type == "QGemm" else 7
    zero_point = values.get(node.input[place]) if len(node.input) > place else None
    if zero_point is None:
        has_range = node.op_type != "QGemm" or len(node.input) > place - 1
        return int(TensorProto.UINT8 if has_range else TensorProto.FLOAT)
    return int(TensorProto.INT8 if zero_point.dtype == np.int8 else TensorProto.UINT8)


def _traffic(
    node: onnx.NodeProto, layer: Operator, recorded: dict[str, Any], values: dict[str, Any]
) -> LayerTraffic | None:
    """What a layer read and wrote; None if it wrote no integers."""
    if layer.scale is None or layer.zero_point is None or layer.integers is None:
        return None
    source, output = recorded.get(node.input[0]), recorded.get(node.output[0])
    zero_point = values.get(node.input[2])
    if source is None or output is None or output.dtype not in (np.uint8, np.int8):
        return None
    read, written = torch.from_numpy(source), torch.from_numpy(output)
    zero = 0 if zero_point is None else int(zero_point.reshape(()))
    if is_channels_last(node):
        read, written = read.movedim(-1, 1), written.movedim(-1, 1)
    if node.op_type == "QLinearConv":
        ends = [size for pair in reversed(uneven_pads(node)) for size in pair]
        if any(ends):
            read = F.pad(read.int(), ends, value=zero).to(read.dtype)
    scale = float(values[node.input[1]].reshape(()))
    return LayerTraffic(
        layer,
        QuantizedTensor(read.contiguous(), scale, zero),
        QuantizedTensor(written.contiguous(), layer.scale, layer.zero_point),
    )
