"""A calibrated model as plain layers that round: what runtimes other than torch are given.

The module computes in float32 what int8 would: weights are multiples of their scales, and
activations pass through ``quantized_decomposed`` operators, which round them. Runtimes turn these
into operators of their own file formats; executed by torch, the module is what a file should
compute, apart from the order of roundings.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import reference
from torch.ao.quantization.quantize_fx import _convert_to_reference_decomposed_fx
from torch.fx import GraphModule

from ptqbench.quantization.torch_warnings import known_deprecations_ignored

_CONVOLUTIONS: Mapping[type[nn.Module], type[nn.Module]] = {
    reference.Conv1d: nn.Conv1d,
    reference.Conv2d: nn.Conv2d,
    reference.Conv3d: nn.Conv3d,
    reference.ConvTranspose1d: nn.ConvTranspose1d,
    reference.ConvTranspose2d: nn.ConvTranspose2d,
    reference.ConvTranspose3d: nn.ConvTranspose3d,
}
_DECOMPOSED = torch.ops.quantized_decomposed
QUANTIZE, DEQUANTIZE = (
    _DECOMPOSED.quantize_per_tensor.default,
    _DECOMPOSED.dequantize_per_tensor.default,
)
"""What rounds activations in a simulated graph: ``(x, scale, zero_point, min, max, dtype)``."""


@dataclass(frozen=True)
class RoundedWeights:
    """Integer weights of a layer.

    Attributes:
        integers: int8, ``O×I×…``.
        scales: float32, one per output channel.
        axis: The dimension of output channels.
    """

    integers: Tensor
    scales: Tensor
    axis: int = 0


@dataclass(frozen=True)
class SimulatedModel:
    """A float32 graph that rounds as int8 would.

    Attributes:
        module: Float32 layers and operators that quantize and dequantize activations.
        weights: Of the int8 layers, by the path of their parameter.
    """

    module: GraphModule
    weights: Mapping[str, RoundedWeights]


def simulate(calibrated: nn.Module) -> SimulatedModel:
    """Convert a prepared and calibrated module, whose weight grids are set; it is not changed.

    Args:
        calibrated: Of graph mode, with observers that saw data.
    """
    assert isinstance(calibrated, GraphModule)
    with torch.no_grad(), known_deprecations_ignored():
        module = _convert_to_reference_decomposed_fx(copy.deepcopy(calibrated)).eval()
        weights = dict(
            _plain(module, path, layer)
            for path, layer in list(module.named_modules())
            if isinstance(layer, (reference.Linear, *_CONVOLUTIONS))
        )
        weights |= _constant_weights(module)
    return SimulatedModel(module, weights)


def _plain(module: GraphModule, path: str, layer: Any) -> tuple[str, RoundedWeights]:
    """Replace a layer with quantized weights by a plain one whose weights are rounded."""
    plain: Any
    bias = layer.bias is not None
    if isinstance(layer, reference.Linear):
        plain = nn.Linear(layer.in_features, layer.out_features, bias)
    else:
        kind: Any = _CONVOLUTIONS[type(layer)]
        options = {"bias": bias, "groups": layer.groups, "dilation": layer.dilation}
        if layer.transposed:
            options["output_padding"] = layer.output_padding
        shape = (layer.in_channels, layer.out_channels, layer.kernel_size)
        plain = kind(*shape, layer.stride, layer.padding, **options)
    plain.weight = nn.Parameter(layer.get_weight().detach(), requires_grad=False)
    if bias:
        plain.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    module.set_submodule(path, plain.eval())
    integers = layer.get_quantized_weight()  # int8, as the operators of this form take it
    scales = torch.as_tensor(layer.weight_scale, dtype=torch.float32).reshape(-1)
    axis = int(layer.weight_axis_int) if len(scales) > 1 else 0
    return f"{path}.weight", RoundedWeights(integers, scales, axis)


def _constant_weights(module: GraphModule) -> dict[str, RoundedWeights]:
    """Round the weights of functions once instead of in every call, in place."""
    weights = {}
    for node in list(module.graph.nodes):
        source: Any = node.args[0] if node.args else None
        if getattr(source, "op", "") != "get_attr" or "quantize_per_" not in str(node.target):
            continue
        if "dequantize" in str(node.target):
            continue
        constant: Any = module
        for name in str(source.target).split("."):
            constant = getattr(constant, name)
        values = [_value(module, each) for each in node.args[1:]]
        integers = node.target(constant, *values)
        if integers.dtype != torch.int8 or torch.as_tensor(values[1]).any():
            continue  # an operand like any activation, which has a zero point
        for reader in list(node.users):
            arguments = [_value(module, each) for each in reader.args[1:]]
            constant.data = reader.target(integers, *arguments)
            reader.replace_all_uses_with(source)
            module.graph.erase_node(reader)
        module.graph.erase_node(node)
        scales = torch.as_tensor(values[0], dtype=torch.float32).reshape(-1)
        weights[str(source.target)] = RoundedWeights(integers, scales)
    module.graph.eliminate_dead_code()
    module.recompile()
    return weights


def _value(module: GraphModule, argument: Any) -> Any:
    """The value of an argument that may be an attribute of the module."""
    if getattr(argument, "op", "") != "get_attr":
        return argument
    value: Any = module
    for name in argument.target.split("."):
        value = getattr(value, name)
    return value
