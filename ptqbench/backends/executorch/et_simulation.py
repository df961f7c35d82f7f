"""Compute in float32 what the graph of a ``.pte`` file says, without XNNPACK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ptqbench.backends.backend import SimulationError
from ptqbench.backends.executorch.et_layers import read_layer
from ptqbench.backends.executorch.et_program import XNNPACK, read_program
from ptqbench.backends.executorch.xnnpack_graph import LAYERS, XnnGraph, XnnNode, read_graph

Compute: TypeAlias = "Callable[[XnnNode, list[Tensor]], Tensor]"
_LOWEST, _HIGHEST = -128, 127


class WrittenOut:
    """A file as a function from images to logits, computed by torch.

    Args:
        path: The file.

    Raises:
        SimulationError: Operators other than those of one graph of XNNPACK are executed.
    """

    def __init__(self, path: Path) -> None:
        program = read_program(path.read_bytes())
        delegates = [call.delegate for call in program.calls]
        if delegates != [0] or program.delegates[0].name != XNNPACK:
            kinds = sorted({call.operator for call in program.calls if call.operator})
            raise SimulationError(
                f"parts of the file are executed by ExecuTorch's own operators ({', '.join(kinds)})"
                if kinds
                else "the file has several graphs"
            )
        self._graph = read_graph(program.delegates[0].payload, program.data)
        unknown = {n.kind for n in self._graph.nodes} - {*LAYERS, *_OPERATORS}
        if unknown:
            raise SimulationError(f"{', '.join(sorted(unknown))} has no form in float32 here")
        externals = {v.external: number for number, v in self._graph.values.items()}
        (call,) = program.calls
        self._source = externals[call.arguments.index(program.inputs[0])]
        self._result = externals[call.arguments.index(program.outputs[0])]
        self._layers = {
            node.output: _layer(self._graph, node)
            for node in self._graph.nodes
            if node.kind in LAYERS
        }

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` float32 of images ``N×C×H×W`` float32."""
        return torch.cat([self._logits(image) for image in images.split(1)])

    def _logits(self, image: Tensor) -> Tensor:
        values = {self._source: image}
        for node in self._graph.nodes:
            inputs = [self._read(values, number) for number in node.inputs]
            if node.kind in LAYERS:
                result = self._layers[node.output](inputs[0])
            else:
                result = _OPERATORS[node.kind](node, inputs)
            if node.limits != (-np.inf, np.inf):
                result = result.clamp(*node.limits)
            values[node.output] = self._rounded(node.output, result)
        return values[self._result]

    def _read(self, values: Mapping[int, Tensor], number: int) -> Tensor:
        if number in values:
            return values[number]
        value = self._graph.values[number]
        if value.constant is None:
            raise SimulationError("the file reads a value that nothing computes")
        numbers = torch.from_numpy(np.array(value.constant, np.float32))
        if value.scales.size == 1:
            numbers = (numbers - value.zero_point) * float(value.scales[0])
        return numbers

    def _rounded(self, number: int, result: Tensor) -> Tensor:
        value = self._graph.values[number]
        if value.datatype != "qint8":
            return result
        scale = float(value.scales[0])
        steps = (result / scale).round() + value.zero_point
        return (steps.clamp(_LOWEST, _HIGHEST) - value.zero_point) * scale


def _layer(graph: XnnGraph, node: XnnNode) -> Callable[[Tensor], Tensor]:
    """A convolution or linear layer whose weights are the numbers that its integers stand for."""
    layer = read_layer(graph, node)
    weight = layer.weight
    if layer.integers is not None:
        shape = (-1,) + (1,) * (layer.integers.integers.dim() - 1)
        if node.kind == "ConvTranspose2d":
            shape = (1, -1, 1, 1)
        weight = layer.integers.integers.float() * layer.integers.scales.float().view(shape)
    if weight is None or (node.geometry is not None and node.kind == "ConvTranspose2d"):
        raise SimulationError(f"{node.kind} has no form in float32 here")
    bias, matrix = layer.bias, weight
    fields = node.geometry
    if fields is None:
        return lambda x: F.linear(x, matrix, bias)
    pads = (fields["left"], fields["right"], fields["top"], fields["bottom"])
    stride = (fields["stride_height"], fields["stride_width"])
    dilation = (fields["dilation_height"], fields["dilation_width"])

    def convolve(x: Tensor) -> Tensor:
        padded = F.pad(x.permute(0, 3, 1, 2), pads)
        y = F.conv2d(padded, matrix, bias, stride, 0, dilation, fields["groups"])
        return y.permute(0, 2, 3, 1)

    return convolve


def _pool(node: XnnNode, x: Tensor) -> Tensor:
    """The largest or mean value of windows; what is padded counts in neither."""
    assert node.geometry is not None
    fields = node.geometry
    pads = (fields["left"], fields["right"], fields["top"], fields["bottom"])
    window, stride = ((fields[f"{name}height"], fields[f"{name}width"]) for name in ("", "stride_"))
    maps = x.permute(0, 3, 1, 2)
    if node.kind == "MaxPooling2d":
        dilation = (fields["dilation_height"], fields["dilation_width"])
        y = F.max_pool2d(F.pad(maps, pads, value=-np.inf), window, stride, 0, dilation)
    else:
        counts = F.avg_pool2d(F.pad(torch.ones_like(maps), pads), window, stride)
        y = F.avg_pool2d(F.pad(maps, pads), window, stride) / counts
    return y.permute(0, 2, 3, 1)


def _pad(node: XnnNode, x: Tensor) -> Tensor:
    before, after = node.lists
    pairs = list(zip(before, after, strict=True))
    return F.pad(x, [size for pair in reversed(pairs) for size in pair], value=node.factor)


def _slice(node: XnnNode, x: Tensor) -> Tensor:
    for axis, (start, size) in enumerate(zip(*node.lists, strict=True)):
        x = x.narrow(axis, start, size)
    return x


_JOIN: Compute = lambda node, values: torch.cat(values, node.axis)  # noqa: E731
_OPERATORS: Mapping[str, Compute] = {
    "Convert": lambda _, v: v[0],
    "Copy": lambda _, v: v[0],
    "Clamp": lambda _, v: v[0],
    "StaticTranspose": lambda n, v: v[0].permute(n.lists[0]),
    "StaticReshape": lambda n, v: v[0].reshape([each or -1 for each in n.lists[0]]),
    "StaticSlice": lambda n, v: _slice(n, v[0]),
    "StaticConstantPad": lambda n, v: _pad(n, v[0]),
    "Add": lambda _, v: v[0] + v[1],
    "Subtract": lambda _, v: v[0] - v[1],
    "Multiply": lambda _, v: v[0] * v[1],
    "Div": lambda _, v: v[0] / v[1],
    "Maximum": lambda _, v: torch.maximum(v[0], v[1]),
    "Minimum": lambda _, v: torch.minimum(v[0], v[1]),
    "BatchMatrixMultiply": lambda _, v: v[0] @ v[1],
    "GlobalAvgPooling2d": lambda _, v: v[0].mean((1, 2), keepdim=True),
    "AvgPooling2d": lambda n, v: _pool(n, v[0]),
    "MaxPooling2d": lambda n, v: _pool(n, v[0]),
    "Sigmoid": lambda _, v: v[0].sigmoid(),
    "Hardswish": lambda _, v: F.hardswish(v[0]),
    "Tanh": lambda _, v: v[0].tanh(),
    "Gelu": lambda _, v: F.gelu(v[0]),
    "ELU": lambda n, v: F.elu(v[0], n.factor),
    "LeakyReLU": lambda n, v: F.leaky_relu(v[0], n.factor),
    "Softmax": lambda _, v: v[0].softmax(-1),
    "Exp": lambda _, v: v[0].exp(),
    "Log": lambda _, v: v[0].log(),
    "Abs": lambda _, v: v[0].abs(),
    "Negate": lambda _, v: -v[0],
    "Square": lambda _, v: v[0].square(),
    "SquareRoot": lambda _, v: v[0].sqrt(),
    "ReciprocalSquareRoot": lambda _, v: v[0].rsqrt(),
    **{f"Concatenate{count}": _JOIN for count in range(2, 6)},
}
"""What operators that are no layers compute."""
