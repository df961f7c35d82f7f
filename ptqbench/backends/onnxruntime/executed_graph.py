"""What ONNX Runtime really executes: its own optimized graph of a file, as a neutral graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ptqbench.backends.graph import Graph, IntegerWeights, Operator, Role
from ptqbench.backends.onnx_format.external_data import external_tensors
from ptqbench.backends.onnx_format.onnx_graph import constants
from ptqbench.backends.onnx_format.qdq_graph import fused_activations, is_relu6
from ptqbench.backends.onnxruntime.float_reasons import RANGELESS, FloatReasons
from ptqbench.backends.onnxruntime.ort_session import create_session

if TYPE_CHECKING:
    import onnx

REORDERS_WEIGHTS = ("NchwcTransformer",)
"""The layout that float convolutions have on some CPUs hides their weights; it changes neither
what is int8 nor what is computed."""

INT8_LAYERS = ("QLinearConv", "QGemm", "QLinearMatMul")
_FLOAT_LAYERS = (
    *("Conv", "FusedConv", "NhwcFusedConv"),
    *("Gemm", "FusedGemm", "MatMul", "FusedMatMul"),
)
_PARTLY_INT8 = ("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "ConvInteger", "MatMulInteger")
_ROLES: Mapping[str, Role] = {
    "BatchNormalization": Role.BATCH_NORM,
    "Relu": Role.RELU,
    "QuantizeLinear": Role.CONVERSION,
    "DequantizeLinear": Role.CONVERSION,
    "DynamicQuantizeLinear": Role.CONVERSION,
    "Cast": Role.CONVERSION,
    "Transpose": Role.CONVERSION,
}
_SCALES: Mapping[str, tuple[int, int]] = {
    "QLinearConv": (6, 7),
    "QGemm": (7, 8),
    "QLinearMatMul": (6, 7),
    "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7),
    "QLinearConcat": (0, 1),
    "QLinearGlobalAveragePool": (3, 4),
    "QLinearAveragePool": (3, 4),
    "QLinearSigmoid": (3, 4),
    "QLinearLeakyRelu": (3, 4),
    "QLinearSoftmax": (3, 4),
    "QuantizeLinear": (1, 2),
}
"""Where operators have the scale and the zero point of their output among their inputs."""


def executed_graph(path: Path) -> Graph:
    """Read what ONNX Runtime makes of a file on this machine.

    Args:
        path: A file that can be trusted, or was tried out in another process.
    """
    import onnx

    return read_executed(optimized_model(path), fused_activations(onnx.load(path)))


def optimized_model(path: Path) -> onnx.ModelProto:
    """Return the model that ONNX Runtime makes of a file on this machine.

    Args:
        path: A file that can be trusted, or was tried out in another process.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="ptqbench-") as folder:
        target = Path(folder) / "optimized.onnx"
        # Weights of other files have to come along: their paths would be those of the new file.
        parted = any(external_tensors(onnx.load(path, load_external_data=False)))
        source = onnx.load(path).SerializeToString() if parted else path
        create_session(source, 1, optimized=target, disabled=REORDERS_WEIGHTS)
        return onnx.load(target)


def read_executed(model: onnx.ModelProto, activations: Mapping[str, str]) -> Graph:
    """Read an optimized model.

    Args:
        model: What ONNX Runtime makes of a file.
        activations: Of the file's int8 layers, by the name of their weights: in the optimized
            model they are part of the output's range.
    """
    values = constants(model)
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    reasons = FloatReasons(model.graph, values)
    return Graph(tuple(_operator(node, values, activations, reasons) for node in nodes))


def _operator(
    node: onnx.NodeProto,
    values: Mapping[str, np.ndarray],
    activations: Mapping[str, str],
    reasons: FloatReasons,
) -> Operator:
    kind = node.op_type
    scale, zero_point, lowest = _output_range(node, values)
    shared: dict[str, Any] = {
        "kind": f"{node.domain}::{kind}" if node.domain else kind,
        "value": node.output[0],
        "inputs": tuple(name for name in node.input if name and name not in values),
        "scale": scale,
        "zero_point": zero_point,
        "lowest": lowest,
        "kernel": kind,
    }
    if kind in INT8_LAYERS:
        integers = _integers(node, values)
        role = Role.INT8_LAYER if integers is not None else Role.OTHER
        return Operator(
            role=role,
            path=_path(node),
            integers=integers,
            activation=activations.get(node.input[3], ""),
            precision="int8",
            **shared,
        )
    if kind in _FLOAT_LAYERS or kind in _PARTLY_INT8:
        weight, bias = _float_weights(node, values, reasons)
        if weight is None and kind in ("MatMul", "FusedMatMul"):
            return Operator(role=Role.OTHER, precision="float32", **shared)
        activation = str(_attributes(node).get("activation", "")).lower()
        return Operator(
            role=Role.FLOAT_LAYER,
            path=_path(node),
            weight=weight,
            bias=bias,
            activation=activation if activation in ("relu", "relu6") else "",
            precision="float32",
            obstacle=RANGELESS if kind in _PARTLY_INT8 else reasons.of(node),
            **shared,
        )
    role = _ROLES.get(kind, Role.OTHER)
    if kind == "Clip" and is_relu6(node, values):
        role = Role.RELU6
    weight = _tensor(node, 1, values) if kind == "BatchNormalization" else None
    return Operator(role=role, weight=weight, **shared)


def _path(node: onnx.NodeProto) -> str:
    """The module path in the name of a weight that ptqbench wrote, if it is still there."""
    for name in node.input:
        path, separator, _ = str(name).rpartition(".weight")
        if separator and path:
            return path
    return ""


def _output_range(
    node: onnx.NodeProto, values: Mapping[str, np.ndarray]
) -> tuple[float | None, int | None, int]:
    """Scale, zero point and lowest integer of what an operator writes, if it has one range."""
    places = _SCALES.get(node.op_type)
    if places is None or len(node.input) <= min(places):
        return None, None, 0
    scale, zero_point = (
        values.get(node.input[place]) if place < len(node.input) else None for place in places
    )
    if scale is None or scale.size != 1:
        return None, None, 0
    if zero_point is None:
        return float(scale.reshape(())), 0, 0
    lowest = -128 if zero_point.dtype == np.int8 else 0
    return float(scale.reshape(())), int(zero_point.reshape(())), lowest


def _integers(node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> IntegerWeights | None:
    """The weights of an int8 layer; None if they are not constant, as in attention."""
    weights, scales, zeros = (values.get(node.input[i]) for i in (3, 4, 5))
    source = values.get(node.input[1])
    if weights is None or scales is None or source is None:
        return None
    if node.op_type == "QLinearMatMul":
        weights = weights.reshape(weights.shape[-2:]) if set(weights.shape[:-2]) == {1} else weights
        if weights.ndim != 2:
            return None
    if zeros is None:
        zeros = np.zeros(scales.shape, weights.dtype)
    attributes = _attributes(node)
    if node.op_type == "QLinearMatMul" or (
        node.op_type == "QGemm" and not attributes.get("transB", 0)
    ):
        weights = np.swapaxes(weights, -1, -2)
    exact = weights.dtype == np.uint8 or _is_signed(node, values)
    if weights.dtype == np.uint8:
        weights, zeros = weights.astype(np.int16) - 128, zeros.astype(np.int16) - 128
    place = {"QLinearConv": 8, "QGemm": 6}.get(node.op_type)
    bias = bias_steps = None
    if place is not None and len(node.input) > place and node.input[place] in values:
        steps = scales.reshape(-1).astype(np.float64) * float(source.reshape(()))
        bias = torch.from_numpy(values[node.input[place]].reshape(-1) * steps).float()
        bias_steps = torch.from_numpy(np.broadcast_to(steps, bias.shape).copy())
    geometry = _geometry(node, weights.ndim - 2) if node.op_type == "QLinearConv" else {}
    return IntegerWeights(
        integers=torch.from_numpy(np.ascontiguousarray(weights.astype(np.int8))),
        scales=torch.from_numpy(scales.reshape(-1).astype(np.float64)),
        zero_points=torch.from_numpy(zeros.reshape(-1).astype(np.int64)),
        per_channel=scales.size > 1 or len(weights) == 1,
        bias=bias,
        bias_steps=bias_steps,
        exact=exact,
        **geometry,
    )


def _is_signed(node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> bool:
    """Whether an int8 layer reads s8: only u8 is multiplied by s8 in 16 bits."""
    zero_point = values.get(node.input[2])
    return zero_point is not None and zero_point.dtype == np.int8


def _geometry(node: onnx.NodeProto, dimensions: int) -> dict[str, Any]:
    """Stride, padding (what both sides share of it), dilation and groups."""
    attributes = _attributes(node)
    ones = (1,) * dimensions
    pads = tuple(attributes.get("pads", (0,) * (2 * dimensions)))
    return {
        "stride": tuple(attributes.get("strides", ones)),
        "padding": tuple(map(min, pads[:dimensions], pads[dimensions:])),
        "dilation": tuple(attributes.get("dilations", ones)),
        "groups": int(attributes.get("group", 1)),
    }


def uneven_pads(node: onnx.NodeProto) -> tuple[tuple[int, int], ...]:
    """What a convolution pads besides what both sides share: begin and end, by dimension."""
    pads = _attributes(node).get("pads", ())
    half = len(pads) // 2
    pairs = zip(pads[:half], pads[half:], strict=True)
    return tuple((begin - min(begin, end), end - min(begin, end)) for begin, end in pairs)


def is_channels_last(node: onnx.NodeProto) -> bool:
    """Whether an operator reads and writes ``N×H×W×C``."""
    return bool(_attributes(node).get("channels_last", 0))


def _float_weights(
    node: onnx.NodeProto, values: Mapping[str, np.ndarray], reasons: FloatReasons
) -> tuple[Tensor | None, Tensor | None]:
    """Weights ``O×I×…`` and bias of a float layer, as far as they are constant.

    Where the file has integers, they are as good: their directions are those of the weights.
    """
    weight = _tensor(node, 1, values)
    bias = None if node.op_type in _PARTLY_INT8 else _tensor(node, 2, values)
    if weight is None and len(node.input) > 1:
        quantized = reasons.weights(node.input[1])
        weight = None if quantized is None else _centred(*quantized)
    elif weight is not None and values[node.input[1]].dtype == np.uint8:
        zeros = values.get(node.input[3]) if len(node.input) > 3 else None
        weight = weight - (0 if zeros is None else float(zeros.reshape(-1)[0]))
    if weight is not None and "Conv" not in node.op_type:
        if weight.dim() != 2:
            return None, None
        if not _attributes(node).get("transB", 0):
            weight = weight.t()
    return weight, bias if bias is not None and bias.dim() == 1 else None


def _centred(integers: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> Tensor:
    """Integers less their zero point; one for each channel is zero wherever it is used."""
    zero = zeros.astype(np.float32) if zeros.size == 1 else np.float32(zeros.reshape(-1)[0])
    step = scales.astype(np.float32) if scales.size == 1 else np.float32(1)
    return torch.from_numpy((integers.astype(np.float32) - zero) * step)


def _tensor(node: onnx.NodeProto, place: int, values: Mapping[str, np.ndarray]) -> Tensor | None:
    value = values.get(node.input[place]) if len(node.input) > place else None
    return None if value is None else torch.from_numpy(np.array(value, np.float32))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    attributes = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        attributes[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return attributes
