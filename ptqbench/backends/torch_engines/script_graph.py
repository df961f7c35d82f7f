"""Read a model's own TorchScript graph: what is int8 in it, with which numbers.

Nothing is taken from the module that the file was built from, so that this also reads
foreign files: traced or scripted, frozen or not. Layers of a frozen graph have lost their
names; ``measurement.layer_matching`` finds them again by their weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ptqbench.backends.graph import Graph, Operator
from ptqbench.backends.torch_engines.operators import (
    BATCH_NORMS,
    FLOAT_LAYERS,
    PRODUCTS,
    fused_activation,
    role_of,
)
from ptqbench.backends.torch_engines.packed_weights import unpack

_OBSERVER_TYPES = ("Observer", "FakeQuant")


def read_script(script: torch.jit.ScriptModule) -> Graph:
    """Read the graph of a loaded or traced module.

    Branches that the module never takes are not part of it. If it has such branches with
    layers in them, and no others, module paths are lost.
    """
    modules = list(script.named_modules())
    if any(_decides(node) for node in script.inlined_graph.nodes()):
        decided = _decided(script)
        if not any(_decides(node) for node in decided.inlined_graph.nodes()):
            script = decided
    graph = script.inlined_graph
    values = _Values(script)
    operators = tuple(_operator(node, values) for node in walk(graph) if _is_operator(node))
    left = tuple(
        name
        for name, module in modules
        if any(part in str(getattr(module, "original_name", "")) for part in _OBSERVER_TYPES)
    )
    return Graph(operators, left)


def _decides(node: Any) -> bool:
    """Whether a node chooses which int8 operators and layers run."""
    inside = [inner.kind() for block in node.blocks() for inner in walk(block)]
    return any(kind.startswith("quantized::") or kind in FLOAT_LAYERS for kind in inside)


def _decided(script: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The module without the branches that its attributes rule out, if it can be frozen.

    Nothing is folded: operators that are still separate must be seen as such.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            decided: torch.jit.ScriptModule = torch.jit.freeze(script, optimize_numerics=False)
    except (RuntimeError, AttributeError):  # frozen already, or in training mode
        return script
    return decided


def walk(block: Any) -> Iterator[Any]:
    """All nodes of a graph in order, those of branches and loops included."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from walk(inner)


class _Values:
    """Resolves constants and attributes of a graph to Python objects and module paths."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        self._script = script

    def path(self, value: Any) -> str:
        """Path of the attribute that a value is, empty if it is not one."""
        parts: list[str] = []
        node = value.node()
        while node.kind() == "prim::GetAttr":
            parts.append(node.s("name"))
            node = node.inputsAt(0).node()
        return ".".join(reversed(parts))

    def constant(self, value: Any) -> Any:
        """The object that a value is before the model runs; None if it is computed."""
        node = value.node()
        if node.kind() == "prim::Constant":
            return value.toIValue()
        if node.kind() == "prim::GetAttr":
            attribute: Any = self._script
            for part in self.path(value).split("."):
                attribute = getattr(attribute, part)
            return attribute
        if node.kind() in {"aten::detach", "aten::t", "aten::transpose"}:
            constant = self.constant(node.inputsAt(0))
            transposed = node.kind() == "aten::t" and constant is not None
            return constant.t() if transposed else constant
        return None


def _is_operator(node: Any) -> bool:
    return not node.kind().startswith("prim::")


def _operator(node: Any, values: _Values) -> Operator:
    kind: str = node.kind()
    inputs = list(node.inputs())
    packed_in = [v for v in inputs if "PackedParams" in str(v.type())]
    packed = values.constant(packed_in[0]) if packed_in else None
    weight = None if packed_in else _weight(kind, inputs, values)
    owner = packed_in[0] if packed_in else _parameter(inputs, values)
    scale, zero_point = _output_range(node, inputs, values)
    outputs = list(node.outputs())
    integers = None if packed is None else unpack(packed, kind)
    return Operator(
        kind=kind,
        role=role_of(kind, integers=integers is not None, weight=weight is not None),
        value=outputs[0].debugName() if outputs else "",
        inputs=tuple(_spelled_out(inputs)),
        path=_module_path(values.path(owner)) if owner is not None else "",
        scale=scale,
        zero_point=zero_point,
        integers=integers,
        weight=weight,
        bias=None if weight is None else _bias(kind, inputs, values),
        activation=fused_activation(kind) if integers is not None else "",
    )


def _spelled_out(inputs: list[Any]) -> Iterator[str]:
    for value in inputs:
        if value.node().kind() in {"prim::ListConstruct", "prim::TupleConstruct"}:
            yield from _spelled_out(list(value.node().inputs()))
        else:
            yield value.debugName()


def _module_path(attribute: str) -> str:
    """Module that owns a parameter; a linear layer packs through a module of its own."""
    parts = attribute.split(".")
    while parts and parts[-1] in {"weight", "bias", "_packed_params", "running_mean"}:
        parts.pop()
    return ".".join(parts)


def _parameter(inputs: list[Any], values: _Values) -> Any:
    return next((v for v in inputs if values.path(v).endswith("weight")), None)


def _weight(kind: str, inputs: list[Any], values: _Values) -> Tensor | None:
    if kind in BATCH_NORMS:
        scales = values.constant(inputs[1])
        return scales.detach() if isinstance(scales, Tensor) else None
    if kind not in FLOAT_LAYERS and kind not in PRODUCTS:
        return None
    for value in inputs[1:] if kind != "aten::addmm" else reversed(inputs[:3]):
        constant = values.constant(value)
        # A product with a matrix for each head or place is no linear layer.
        most = 2 if kind in PRODUCTS else math.inf
        if isinstance(constant, Tensor) and 2 <= constant.dim() <= most:
            return constant.detach()
    return None


def _bias(kind: str, inputs: list[Any], values: _Values) -> Tensor | None:
    place = 0 if kind == "aten::addmm" else 2
    bias = values.constant(inputs[place]) if len(inputs) > place else None
    return bias.detach() if isinstance(bias, Tensor) and bias.dim() == 1 else None


def _output_range(node: Any, inputs: list[Any], values: _Values) -> tuple[float | None, int | None]:
    """Scale and zero point among the arguments, found by their names in the schema."""
    if not node.kind().startswith(("quantized::", "aten::quantize_per_tensor")):
        return None, None
    for schema in torch._C._jit_get_schemas_for_operator(node.kind()):
        names = [argument.name for argument in schema.arguments]
        scales = [i for i, name in enumerate(names) if "scale" in name]
        points = [i for i, name in enumerate(names) if "zero_point" in name]
        if len(names) != len(inputs) or not scales or not points:
            continue
        scale, zero_point = values.constant(inputs[scales[-1]]), values.constant(inputs[points[-1]])
        if scale is not None and zero_point is not None:
            return float(scale), int(zero_point)
    return None, None
