"""Rebuild a captured graph from torch's own layers, under the module paths of the user's model."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from ptqbench.core.step_errors import CALLER
from ptqbench.errors import UserError
from ptqbench.quantization.canonical import plain_layers
from ptqbench.quantization.canonical.aten_nodes import (
    ModuleCall,
    arguments,
    is_mutable,
    is_view,
    live,
    module_call,
    only_output,
    operator_name,
    place,
    reshape_sizes,
)
from ptqbench.quantization.canonical.capture import Capture
from ptqbench.quantization.canonical.functions import FUNCTIONS
from ptqbench.quantization.canonical.layer_paths import Layer, Paths
from ptqbench.quantization.canonical.open_sizes import has_open_sizes, spell
from ptqbench.quantization.canonical.reduction import fold_constants, is_idle_dropout
from ptqbench.quantization.canonical.value_slots import Values, WritesIntoViewError

_ALIASES = frozenset({"alias", "detach", "contiguous", "positive", "to", "type_as"})
"""Operators that may return the very value that they are called with."""
_COPIES = frozenset({"clone", "lift_fresh_copy", "_to_copy"})
_PRODUCTS = {"matmul": "other", "mm": "mat2"}
"""Products of two values, and the name of the second one."""
_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
_TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
_FUNCTIONAL_BATCH_NORMS = frozenset(
    {"_native_batch_norm_legit_no_training", "_native_batch_norm_legit"}
)
"""What torch makes of a BatchNorm in a functional graph; its first output is the value."""
_BATCH_NORMS = _FUNCTIONAL_BATCH_NORMS | {"batch_norm"}
_RESHAPES = frozenset({"view", "reshape", "_unsafe_view", "unflatten"})


def lift(capture: Capture, model: nn.Module) -> fx.GraphModule:
    """Rebuild a captured graph.

    Args:
        capture: Of the model.
        model: The user's model, for its modules without weights and its name.

    Returns:
        A graph that calls torch's own layers; their weights are the model's own tensors.

    Raises:
        UserError: The model is not the same twice, or its outputs depend on the batch.
        WritesIntoViewError: The captured graph has to be made functional first.
    """
    return _Lifting(capture, model).run()


class _Lifting:
    def __init__(self, capture: Capture, model: nn.Module) -> None:
        self._constants = fold_constants(capture.graph, capture.constants)
        self._model = model
        self._root = nn.Module()
        self._graph = fx.Graph()
        nodes = [n for n in capture.graph.nodes if n.name not in self._constants]
        self._values = Values({node.name: i for i, node in enumerate(capture.graph.nodes)})
        self._live = live(nodes)
        self._calls = {n.name: module_call(n) for n in nodes if n.op == "call_function"}
        self._call_sizes = Counter(
            self._calls[n.name].key for n in self._live if n.op == "call_function"
        )
        self._paths = Paths(self._calls[n.name].path for n in self._live if n.name in self._calls)
        self._buffers: dict[str, str] = {}

    def run(self) -> fx.GraphModule:
        for node in self._live:
            if node.op == "placeholder":
                self._values.add(node, self._graph.placeholder("images"))
            elif node.op == "output":
                self._graph.output(self._argument(only_output(node)))
            else:
                self._lift(node)
        lifted = fx.GraphModule(self._root, self._graph, type(self._model).__name__)
        lifted.graph.eliminate_dead_code()
        lifted.delete_all_unused_submodules()
        lifted.recompile()
        return lifted.eval()

    def _lift(self, node: Node) -> None:
        name = operator_name(node)
        source = node.args[0] if node.args and isinstance(node.args[0], Node) else None
        if source is not None and source in self._values:
            same = _dtype(node) == _dtype(source)
            first = name == "getitem" and operator_name(source) in _FUNCTIONAL_BATCH_NORMS
            if first or is_idle_dropout(node) or (name in _ALIASES and same):
                self._values.alias(node, source)
                return
            if name in _COPIES and same:
                self._values.add(node, self._values[source])
                return
        before = len(self._graph.nodes)
        lifted = self._emit(node, name)
        for new in islice(reversed(self._graph.nodes), len(self._graph.nodes) - before):
            new.meta[CALLER] = self._calls[node.name].path
        if is_mutable(node):
            assert source is not None
            self._values.write(node, source, lifted)
        else:
            self._values.add(node, lifted, source if is_view(node) else None)

    def _emit(self, node: Node, name: str) -> Node:
        target: Any = node.target
        if not isinstance(target, torch._ops.OpOverload):
            return self._graph.call_function(
                target, self._argument(node.args), self._argument(node.kwargs)
            )
        values = arguments(node)
        layer = self._layer(node, name, values)
        if layer is not None:
            return layer
        inputs = {key: self._argument(value) for key, value in values.items()}
        module = self._module(node, name, values, inputs)
        if module is not None:
            return module
        if name in _RESHAPES:
            # Not view: int8 maps are channels-last.
            sizes = reshape_sizes(node) or inputs.get("size") or inputs.get("shape")
            if sizes is not None:
                return self._graph.call_method("reshape", (inputs["self"], *sizes))
        if name == "sym_size":
            return self._graph.call_method("size", (inputs["self"], inputs["dim"]))
        emit = FUNCTIONS.get(name)
        lifted = emit(self._graph, inputs) if emit and not _is_not_float32(node) else None
        return lifted if lifted is not None else self._aten(node)

    def _aten(self, node: Node) -> Node:
        """Call the ATen operator itself."""
        target: Any = node.target
        if is_mutable(node):
            packet = getattr(torch.ops.aten, operator_name(node), None)
            target = getattr(packet, target._overloadname, None) if packet else None
            if target is None:
                raise WritesIntoViewError(node.name)
        arguments, options = self._argument(node.args), self._argument(node.kwargs)
        if has_open_sizes(node) and (spelled := spell(node)) is not None:
            kind, target = spelled
            return self._graph.create_node(kind, target, arguments, options)
        return self._graph.call_function(target, arguments, options)

    # Layers with weights

    def _layer(self, node: Node, name: str, values: Mapping[str, Any]) -> Node | None:
        if name in _CONVOLUTIONS | _TRANSPOSED:
            return self._convolution(node, values)
        if name == "linear":
            return self._linear(node, values)
        if name in _PRODUCTS:
            return self._product(node, values["self"], values[_PRODUCTS[name]])
        if name in _BATCH_NORMS:
            return self._batch_norm(node, values)
        if name == "instance_norm" and not values["use_input_stats"]:
            raise UserError(
                f"InstanceNorm with running statistics {place(node)} computes what BatchNorm "
                "does, but torch's int8 kernel takes the statistics of each image. Use BatchNorm "
                "with the same parameters, or set track_running_stats=False and train again."
            )
        return None

    def _convolution(self, node: Node, values: Mapping[str, Any]) -> Node | None:
        weight, bias = self._constant(values["weight"]), self._constant(values["bias"])
        if weight is None or (bias is None and values["bias"] is not None):
            return None
        images: Node = self._argument(values["input"])
        geometry = {k: v for k, v in values.items() if k not in ("input", "weight", "bias")}
        dimensions = weight.dim() - 2
        if isinstance(geometry["padding"], str):
            images, geometry["padding"] = self._padded_by_name(images, weight, geometry)
        elif not _is_constant_padding(geometry, dimensions):
            return None
        layer = plain_layers.make_convolution(weight, bias, geometry)
        return self._call(node, layer, images)

    def _padded_by_name(
        self, images: Node, weight: Tensor, geometry: Mapping[str, Any]
    ) -> tuple[Node, tuple[int, ...]]:
        """Write out padding that is written as text: numbers, and a node where it is uneven."""
        dimensions = weight.dim() - 2
        if geometry["padding"] == "valid":
            return images, (0,) * dimensions
        dilation = plain_layers.spread(geometry["dilation"], dimensions)
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(total % 2 for total in totals):
            # torch puts the odd one on the far side.
            pads = [p for total in reversed(totals) for p in (0, total % 2)]
            images = self._graph.call_function(
                torch.nn.functional.pad, (images, pads, "constant", 0.0)
            )
        return images, tuple(total // 2 for total in totals)

    def _linear(self, node: Node, values: Mapping[str, Any]) -> Node | None:
        weight, bias = self._constant(values["weight"]), self._constant(values["bias"])
        if weight is None or weight.dim() != 2 or (bias is None and values["bias"] is not None):
            return None
        return self._call(
            node, plain_layers.make_linear(weight, bias), self._argument(values["input"])
        )

    def _product(self, node: Node, images: Node, factor: object) -> Node | None:
        """A product with a constant matrix is a linear layer."""
        weight = self._constant(factor)
        if weight is None or weight.dim() != 2 or images.meta["val"].dim() < 2:
            return None
        layer = plain_layers.make_linear(weight.t().contiguous(), None)
        return self._call(node, layer, self._argument(images))

    def _batch_norm(self, node: Node, values: Mapping[str, Any]) -> Node:
        if values.get("training") or values.get("running_mean") is None:
            raise UserError(
                f"A BatchNorm {place(node)} uses the statistics of the batch, so that the logits "
                "of an image depend on the images beside it. Train it with "
                "track_running_stats=True, or put the whole model into evaluation mode."
            )
        mean, variance = (self._constant(values[k]) for k in ("running_mean", "running_var"))
        assert mean is not None and variance is not None
        layer = plain_layers.make_batch_norm(
            mean,
            variance,
            self._constant(values["weight"]),
            self._constant(values["bias"]),
            eps=values["eps"],
            dimensions=values["input"].meta["val"].dim(),
        )
        return self._call(node, layer, self._argument(values["input"]))

    def _call(self, node: Node, layer: nn.Module, images: Node) -> Node:
        path = self._calls[node.name].path
        caller = self._model.get_submodule(path)
        place = self._paths.place(self._root, caller, path, Layer(operator_name(node), layer))
        return self._graph.call_module(place, (images,))

    # Torch's modules without weights

    def _module(
        self, node: Node, name: str, values: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> Node | None:
        """Call a copy of the user's module if it is one of torch's and the node all it does."""
        call = self._calls[node.name]
        if self._call_sizes[call.key] != 1 or not _is_torchs(call) or name in _RESHAPES:
            return None
        module = self._model.get_submodule(call.path)
        first = next(iter(values.values()))
        if type(module).__name__ != call.kind.rpartition(".")[2] or not isinstance(first, Node):
            return None
        sources = [each for each in node.all_input_nodes if each.name not in self._constants]
        if sources != [first]:
            return None
        plain = copy.deepcopy(module)
        if getattr(plain, "inplace", False):
            plain.inplace = False  # type: ignore[assignment]
        return self._call(node, plain, next(iter(inputs.values())))

    # Arguments

    def _constant(self, argument: object) -> Tensor | None:
        if isinstance(argument, Node):
            value = self._constants.get(argument.name)
            return value if isinstance(value, Tensor) else None
        return None

    def _argument(self, argument: Any) -> Any:
        return fx.map_arg(argument, self._value)

    def _value(self, node: Node) -> Node:
        if node in self._values:
            return self._values[node]
        value = self._constants[node.name]
        if not isinstance(value, Tensor):
            return value  # type: ignore[no-any-return]
        if node.name not in self._buffers:
            name = f"constant_{len(self._buffers)}"
            self._root.register_buffer(name, value.detach().clone())
            self._buffers[node.name] = name
        return self._graph.get_attr(self._buffers[node.name])


def _dtype(node: Node) -> object:
    return getattr(node.meta.get("val"), "dtype", None)


def _is_not_float32(node: Node) -> bool:
    return _dtype(node) not in (torch.float32, None)


def _is_torchs(call: ModuleCall) -> bool:
    return call.kind.startswith("torch.nn.modules.") and "container" not in call.kind


def _is_constant_padding(geometry: Mapping[str, Any], dimensions: int) -> bool:
    return all(isinstance(p, int) for p in plain_layers.spread(geometry["padding"], dimensions))
