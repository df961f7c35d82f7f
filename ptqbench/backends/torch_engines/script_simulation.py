"""Compute what a TorchScript graph says, in float32: operators of int8 as their definitions.

An int8 operator is, by definition, the float operator on the numbers that its integers stand for,
rounded to the grid of its output. Engines take other ways to that result; here it is computed as
written, operator by operator, from the integer weights in the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ptqbench.backends.backend import SimulationError
from ptqbench.backends.torch_engines.operators import fused_activation
from ptqbench.backends.torch_engines.packed_weights import unpack
from ptqbench.backends.torch_engines.torchscript import engine_set

Definition: TypeAlias = "Callable[..., Tensor]"

_LAYERS = frozenset(
    f"quantized::{name}{activation}"
    for name in ("conv1d", "conv2d", "conv3d", "linear")
    for activation in ("", "_relu")
)
_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_BATCH_NORMS = ("batch_norm", "batch_norm1d", "batch_norm2d", "batch_norm3d")


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    return F.batch_norm(x, mean, var, weight, bias, eps=eps)


_DEFINITIONS: Mapping[str, Definition] = {
    "quantized::add": torch.add,
    "quantized::add_relu": lambda a, b: torch.add(a, b).relu(),
    "quantized::mul": torch.mul,
    "quantized::mul_relu": lambda a, b: torch.mul(a, b).relu(),
    "quantized::add_scalar": torch.add,
    "quantized::mul_scalar": torch.mul,
    "quantized::matmul": torch.matmul,
    "quantized::cat": lambda tensors, dim: torch.cat(list(tensors), dim),
    "quantized::cat_relu": lambda tensors, dim: torch.cat(list(tensors), dim).relu(),
    "quantized::hardswish": F.hardswish,
    "quantized::sigmoid": torch.sigmoid,
    "quantized::leaky_relu": lambda x, slope, *_: F.leaky_relu(x, slope),
    "quantized::elu": lambda x, alpha, *_: F.elu(x, alpha),
    "quantized::relu6": lambda x, *_: F.relu6(x),
    "quantized::softmax": lambda x, dim, *_: x.softmax(dim),
    "quantized::layer_norm": F.layer_norm,
    "quantized::group_norm": F.group_norm,
    "quantized::instance_norm": lambda x, weight, bias, eps: F.instance_norm(
        x, None, None, weight, bias, eps=eps
    ),
    **{f"quantized::{name}": _batch_norm for name in _BATCH_NORMS},
    **{
        f"quantized::{name}_relu": lambda *arguments: _batch_norm(*arguments).relu()
        for name in _BATCH_NORMS
    },
}
"""Operators of torch's quantized library by what they are in float32, less the output's grid."""
_OUTPUT_GRID = ("output_scale", "output_zero_point", "scale", "zero_point")
"""How schemas call arguments that say how the result is rounded."""


class ScriptSimulation:
    """A frozen graph as a function from images to logits, in float32 with the file's roundings.

    Args:
        script: Frozen, without branches.
        engine: torch quantized engine that its weights are packed for.
    """

    def __init__(self, script: torch.jit.ScriptModule, engine: str) -> None:
        if next(script.inlined_graph.inputs()).uses():
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                script = torch.jit.freeze(script.eval())
        self._graph = script.inlined_graph
        self._engine = engine
        self._layers: dict[str, Callable[[Tensor], Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` float32 of images ``N×C×H×W`` float32.

        Raises:
            SimulationError: The graph branches, or has an int8 operator without a definition here.
        """
        source = list(self._graph.inputs())[-1]
        values: dict[str, Any] = {source.debugName(): images}
        with engine_set(self._engine), torch.inference_mode():
            for node in self._graph.nodes():
                self._run(node, values)
            result = values[next(self._graph.outputs()).debugName()]
        logits: Tensor = result.dequantize() if result.is_quantized else result
        return logits

    def _run(self, node: Any, values: dict[str, Any]) -> None:
        kind: str = node.kind()
        outputs = [value.debugName() for value in node.outputs()]
        inputs = [values.get(value.debugName()) for value in node.inputs()]
        if kind == "prim::GetAttr":
            return  # the module itself, which a frozen graph does not read
        if kind == "prim::Constant":
            results = [node.output().toIValue()]
        elif kind in {"prim::ListConstruct", "prim::TupleConstruct"}:
            results = [inputs]
        elif kind in {"prim::ListUnpack", "prim::TupleUnpack"}:
            results = list(inputs[0] or ())
        elif kind == "prim::NumToTensor":
            results = [torch.tensor(inputs[0])]
        elif kind.startswith("prim::"):
            raise SimulationError(f"its graph has the operator {kind}, whose result varies")
        else:
            result = self._result(node, outputs[0], inputs)
            results = [result] if len(outputs) == 1 else list(result)
        values |= zip(outputs, results, strict=True)

    def _result(self, node: Any, output: str, inputs: Sequence[Any]) -> Any:
        kind, call = node.kind(), _operation(node)
        if kind in _LAYERS:
            return self._layer(kind, output, inputs)
        plain = [_dequantized(value) for value in inputs]  # before an operator works in place
        result = call(inputs)
        if kind == "aten::quantize_per_tensor" or not _is_quantized(result):
            return result
        if kind.startswith("quantized::"):
            if kind not in _DEFINITIONS:
                raise SimulationError(f"{kind} has no definition in float32 here")
            schema: Any = torch._C.parse_schema(node.schema())
            names = [argument.name for argument in schema.arguments]
            pairs = zip(names, plain, strict=True)
            exact = _DEFINITIONS[kind](*(x for name, x in pairs if name not in _OUTPUT_GRID))
        else:
            exact = call(plain)
        return _rounded_like(exact, result)

    def _layer(self, kind: str, output: str, inputs: Sequence[Any]) -> Tensor:
        source, packed = inputs[0], inputs[1]
        if output not in self._layers:
            self._layers[output] = _layer(kind, packed)
        scale, zero_point = float(inputs[-2]), int(inputs[-1])
        result = self._layers[output](source.dequantize())
        return torch.quantize_per_tensor(result, scale, zero_point, source.dtype)


def _operation(node: Any) -> Callable[[Sequence[Any]], Any]:
    """The operator of a node as a function of its inputs, which a schema gives their names."""
    schema: Any = torch._C.parse_schema(node.schema())
    operator, _ = torch._C._jit_get_operation(schema.name)
    names = [argument.name if argument.kwarg_only else "" for argument in schema.arguments]

    def call(inputs: Sequence[Any]) -> Any:
        pairs = list(zip(names, inputs, strict=True))
        named = {name: value for name, value in pairs if name}
        return operator(*(value for name, value in pairs if not name), **named)

    return call


def _is_quantized(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_quantized


def _dequantized(value: Any) -> Any:
    if _is_quantized(value):
        return value.dequantize()
    if isinstance(value, list):
        return [_dequantized(each) for each in value]
    return value


def _rounded_like(exact: Tensor, result: Tensor) -> Tensor:
    return torch.quantize_per_tensor(exact, result.q_scale(), result.q_zero_point(), result.dtype)


def _layer(kind: str, packed: Any) -> Callable[[Tensor], Tensor]:
    """A convolution or linear layer in float32 with the weights that its integers stand for."""
    integers = unpack(packed, kind)
    if integers is None:
        raise SimulationError(f"{kind} has weights that are not integers")
    scales = integers.scales.view(-1, *(1,) * (integers.integers.dim() - 1))
    factors, activation = (integers.centred * scales).float(), fused_activation(kind)
    bias = None if integers.bias is None else integers.bias.float()

    def run(source: Tensor) -> Tensor:
        if not integers.stride:
            total = F.linear(source, factors, bias)
        else:
            total = _CONVOLUTIONS[factors.dim()](
                source,
                factors,
                bias,
                integers.stride,
                integers.padding,
                integers.dilation,
                integers.groups,
            )
        return total.relu() if activation else total

    return run
