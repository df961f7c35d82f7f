"""Convolutions and linear layers among the operators of a lowered program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ptqbench.backends.graph import IntegerWeights

WEIGHT = "weight"
"""Under which lowered layers have the attribute of the program that their weights come from."""
CONVOLUTIONS = ("onednn::qconv_pointwise", "onednn::qconv2d_pointwise")
INT8_LAYERS = (*CONVOLUTIONS, "onednn::qlinear_pointwise")
_WEIGHTS = {
    **dict.fromkeys(INT8_LAYERS, 3),
    **dict.fromkeys(("aten::convolution", "aten::conv1d", "aten::conv2d", "aten::conv3d"), 1),
    **dict.fromkeys(("aten::mm", "aten::linear", "mkldnn::_linear_pointwise"), 1),
    **dict.fromkeys(("mkldnn::_convolution_pointwise", "aten::conv_transpose2d"), 1),
    **dict.fromkeys(("mkldnn::_convolution_transpose_pointwise",), 1),
    **dict.fromkeys(("aten::addmm", "mkl::_mkl_linear"), 2),
}
"""Where layers have their weights among their arguments."""


def operator_name(node: fx.Node) -> str:
    """Namespace and name of the operator that a node calls; empty if it calls none."""
    target = node.target
    if isinstance(target, torch._ops.OpOverloadPacket):
        return str(target._qualified_op_name)
    return str(target._schema.name) if isinstance(target, torch._ops.OpOverload) else ""


def remember_weights(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> None:
    """Note at each layer which attribute its weights come from, before they are packed.

    Args:
        graph: Of a program; passes take over what is noted at float32 layers that they replace.
        tensors: The attributes that the program has in its file.
    """
    for node in graph.nodes:
        place = _WEIGHTS.get(operator_name(node)) if node.op == "call_function" else None
        if place is not None and len(node.args) > place:
            name = _constant(node.args[place])
            if name in tensors:
                node.meta[WEIGHT] = name


def _constant(node: Any) -> str:
    """The attribute that a value is made of, by its first arguments; empty if by none."""
    while isinstance(node, fx.Node):
        if node.op == "get_attr":
            return str(node.target)
        if node.op != "call_function" or not node.args:
            return ""
        node = node.args[0]
    return ""


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by the names in its schema."""
    assert isinstance(node.target, torch._ops.OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def adds(node: fx.Node) -> bool:
    """Whether a layer adds another value to its sums before it writes them."""
    return {"qaccum", "other"}.intersection(named_arguments(node)) != set()


def layer_value(node: fx.Node) -> str:
    """Name of what a layer computes, before anything is added to it."""
    return f"{node.name}_product" if adds(node) else node.name


class LayerReader:
    """Reads layers of a lowered module.

    Args:
        module: Lowered.
        tensors: Weights as the file has them, by the name of their attribute.
    """

    def __init__(self, module: fx.GraphModule, tensors: Mapping[str, Tensor]) -> None:
        self._module = module
        self._tensors = tensors

    def value(self, argument: Any) -> Any:
        """A number or a constant tensor; None if it is computed."""
        if isinstance(argument, fx.Node):
            return (
                getattr(self._module, str(argument.target)) if argument.op == "get_attr" else None
            )
        return argument

    def weight(self, node: fx.Node) -> Tensor | None:
        """The weights of a float layer, or integers in their place; None if they are computed."""
        value = self._tensors.get(node.meta.get(WEIGHT, ""))
        return None if value is None or value.dim() < 2 else value.float()

    def integers(self, node: fx.Node) -> IntegerWeights | None:
        """The weights of an int8 layer, with geometry and bias."""
        integers = self._tensors.get(node.meta.get(WEIGHT, ""))
        if integers is None or integers.dtype is not torch.int8:
            return None
        arguments = named_arguments(node)
        scales = self.value(arguments["w_scale"]).detach().double().reshape(-1)
        zeros = self.value(arguments["w_zero_point"])
        zeros = torch.zeros(1) if zeros is None else zeros
        bias = self.value(arguments["bias"])
        geometry: dict[str, Any] = {}
        if operator_name(node) in CONVOLUTIONS:
            geometry = {
                name: tuple(int(each) for each in arguments[name])
                for name in ("stride", "padding", "dilation")
            }
            geometry["groups"] = int(arguments["groups"])
        return IntegerWeights(
            integers=integers,
            scales=scales,
            zero_points=zeros.detach().long().reshape(-1),
            per_channel=len(scales) > 1 or len(integers) == 1,
            bias=None if bias is None else bias.detach().float().reshape(-1),
            **geometry,
        )
