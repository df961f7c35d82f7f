"""What is really executed of a program: the graph that Inductor's passes make, neutrally."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import fx

from ptqbench.backends.graph import Graph, Operator, Role
from ptqbench.backends.inductor.inductor_lowering import Lowered, lower
from ptqbench.backends.inductor.lowered_layers import (
    INT8_LAYERS,
    WEIGHT,
    LayerReader,
    adds,
    layer_value,
    named_arguments,
    operator_name,
)
from ptqbench.backends.inductor.pt2_archive import Pt2Archive
from ptqbench.backends.inductor.pt2_program import read_program

_FLOAT_LAYERS = (
    *("aten::convolution", "mkldnn::_convolution_pointwise", "aten::linear", "aten::addmm"),
    *("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::conv_transpose2d"),
    *("mkldnn::_convolution_transpose_pointwise", "mkldnn::_linear_pointwise"),
    "mkl::_mkl_linear",
)
_PRODUCTS = ("aten::mm",)
"""Linear layers if one factor is a weight; attention multiplies activations."""
_ROLES = {
    "aten::batch_norm": Role.BATCH_NORM,
    "aten::_native_batch_norm_legit_no_training": Role.BATCH_NORM,
    "aten::relu": Role.RELU,
    **dict.fromkeys(
        (
            f"quantized_decomposed::{kind}_per_{what}"
            for kind in ("quantize", "dequantize")
            for what in ("tensor", "channel", "token")
        ),
        Role.CONVERSION,
    ),
}
_OBSERVERS = ("fake_quant", "fused_moving_avg_obs", "aten::aminmax", "aten::_aminmax")
_CLAMPS = ("aten::hardtanh", "aten::clamp")
_QUANTIZE = "quantized_decomposed::quantize_per_tensor"
_DEQUANTIZED_WEIGHTS = "quantized_decomposed::dequantize_per"


def executed_graph(path: Path) -> Graph:
    """Read what is executed of a file on this machine.

    Args:
        path: A file that can be trusted, or was tried out in another process.
    """
    return read_lowered(lower(read_program(Pt2Archive(path))))


def read_lowered(lowered: Lowered) -> Graph:
    """Read a lowered program."""
    reader = LayerReader(lowered.module, lowered.program.tensors)
    return Graph(
        tuple(
            operator
            for node in lowered.module.graph.nodes
            if node.op == "call_function" and not _is_size(node)
            for operator in _operators(node, reader, lowered)
        )
    )


def _operators(node: fx.Node, reader: LayerReader, lowered: Lowered) -> Iterator[Operator]:
    """What a call executes: one operator, or a layer and an addition, with an activation or not."""
    operator = _operator(node, reader, lowered)
    if not operator.is_int8_layer or not adds(node):
        yield operator
        return
    arguments = named_arguments(node)
    other = arguments.get("qaccum", arguments.get("other"))
    added = other.name if isinstance(other, fx.Node) else ""
    inputs = tuple(name for name in operator.inputs if name != added)
    value = layer_value(node)
    yield replace(
        operator,
        value=value,
        inputs=inputs,
        scale=None,
        zero_point=None,
        lowest=0,
        activation="",
    )
    yield Operator(
        kind=f"{operator.kind} addition",
        role=Role.OTHER,
        value=node.name,
        inputs=(value, added),
        precision="int8",
        **_written_range(arguments),
    )


def _is_size(node: fx.Node) -> bool:
    """Whether a node computes with sizes, not with values."""
    return operator_name(node) == "aten::sym_size" or not (
        isinstance(node.target, torch._ops.OpOverload) or "getitem" in str(node.target)
    )


def _operator(node: fx.Node, reader: LayerReader, lowered: Lowered) -> Operator:
    name = operator_name(node)
    shared: dict[str, Any] = {
        "kind": name or "getitem",
        "value": node.name,
        "inputs": tuple(_inputs(node)),
    }
    if name in INT8_LAYERS and (integers := reader.integers(node)) is not None:
        output = _written_range(named_arguments(node))
        return Operator(
            role=Role.INT8_LAYER,
            path=_path(node, lowered),
            integers=integers,
            activation=_activation(named_arguments(node)),
            kernel=name,
            precision="int8",
            **shared,
            **output,
        )
    weight = reader.weight(node)
    if name in _FLOAT_LAYERS or name in INT8_LAYERS or (name in _PRODUCTS and weight is not None):
        bias = reader.value(_bias(node))
        return Operator(
            role=Role.FLOAT_LAYER,
            path=_path(node, lowered),
            weight=weight,
            bias=bias if isinstance(bias, torch.Tensor) and bias.dim() == 1 else None,
            kernel=name,
            precision="float32",
            obstacle=_obstacle(node),
            **shared,
        )
    role = _ROLES.get(name, Role.OTHER)
    if any(part in name for part in _OBSERVERS):
        role = Role.OBSERVER
    if name in _CLAMPS and tuple(node.args[1:3]) in ((0.0, 6.0), (0, 6)):
        role = Role.RELU6
    if name == _QUANTIZE:
        shared |= _rounded_range(node, reader)
    scales = reader.value(node.args[1]) if role is Role.BATCH_NORM else None
    return Operator(role=role, weight=scales, **shared)


def _inputs(node: fx.Node) -> Iterator[str]:
    for each in node.all_input_nodes:
        if each.op != "get_attr":
            yield each.name


def _path(node: fx.Node, lowered: Lowered) -> str:
    """The module that weights belong to, if the file has kept its name."""
    name = lowered.program.names.get(node.meta.get(WEIGHT, ""), "")
    path, separator, _ = name.rpartition(".weight")
    return path if separator else ""


def _written_range(arguments: dict[str, Any]) -> dict[str, Any]:
    dtype = arguments["output_dtype"]
    if dtype not in (torch.uint8, torch.int8):
        return {}
    return {
        "scale": float(arguments["output_scale"]),
        "zero_point": int(arguments["output_zero_point"]),
        "lowest": torch.iinfo(dtype).min,
    }


def _rounded_range(node: fx.Node, reader: LayerReader) -> dict[str, Any]:
    scale, zero_point = (reader.value(argument) for argument in node.args[1:3])
    if scale is None or zero_point is None:
        return {}
    lowest = -128 if node.args[-1] is torch.int8 else 0
    return {"scale": float(scale), "zero_point": int(zero_point), "lowest": lowest}


def _activation(arguments: dict[str, Any]) -> str:
    """The activation that a kernel which adds nothing applies itself."""
    name = arguments.get("attr", arguments.get("post_op_name", ""))
    values = arguments.get("scalars", arguments.get("post_op_args", []))
    if name == "hardtanh" and list(values) == [0.0, 6.0]:
        return "relu6"
    return "relu" if name == "relu" else ""


def _bias(node: fx.Node) -> Any:
    """The argument that is the bias of a float layer."""
    if operator_name(node) == "aten::addmm":
        return node.args[0]
    arguments = named_arguments(node)
    return next((arguments[name] for name in ("bias", "B") if name in arguments), None)


def _obstacle(node: fx.Node) -> str:
    """Why a layer whose weights are integers is executed in float32; empty if they are none."""
    sources = [each for each in node.all_input_nodes if each.op == "call_function"]
    weights = [each for each in sources if operator_name(each).startswith(_DEQUANTIZED_WEIGHTS)]
    if not any(_is_constant(each.args[0]) for each in weights):
        return ""
    if "transpose" in operator_name(node) or True in node.args[6:7]:
        return "a transposed convolution, for which Inductor has no int8 kernel: leave it in float"
    if any(
        operator_name(each).endswith("tensor") and _is_constant(each.args[0]) for each in weights
    ):
        return (
            "one weight scale for all channels, for which Inductor has no int8 kernel: quantize "
            "weights per channel"
        )
    if len(weights) == 1:
        return "an input that is not quantized: quantize its output as well"
    return "a combination of shapes and types that Inductor has no int8 kernel for"


def _is_constant(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"
