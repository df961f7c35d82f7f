"""Fix or refuse what torch.ao gets wrong in a graph with observers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase, FixedQParamsObserver, ObserverBase
from torch.fx import GraphModule, Node
from torch.nn import functional as F

from ptqbench.errors import UserError
from ptqbench.quantization.canonical import CALLER
from ptqbench.quantization.fusion_groups import within

_LISTS = frozenset({"chunk", "split", "split_with_sizes", "tensor_split", "unbind"})
"""Functions that return several tensors."""


def _float_cat(*args: Any, **kwargs: Any) -> Tensor:
    return torch.cat(*args, **kwargs)


def _float_layer_norm(*args: Any, **kwargs: Any) -> Tensor:
    return F.layer_norm(*args, **kwargs)


class FloatCall(nn.Module):
    """A function or method as a module that torch.ao does not know, and so leaves in float32.

    Args:
        target: The function, or the name of the method.
    """

    def __init__(self, target: Callable[..., Any] | str) -> None:
        super().__init__()
        self.target = target

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        if isinstance(self.target, str):
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        return self.target(*args, **kwargs)


def hide_float_calls(model: nn.Module, keep_float: Iterable[str]) -> tuple[str, ...]:
    """Turn the functions that modules in float32 call into modules, in place.

    A canonical graph calls them itself, so that torch.ao does not see whose they are.

    Args:
        model: Canonical; others are not changed.
        keep_float: Paths of the modules that stay float32.

    Returns:
        The paths of the new modules; they are not to be traced into.
    """
    float_paths = tuple(keep_float)
    if not isinstance(model, GraphModule) or not float_paths:
        return ()
    hidden: list[str] = []
    for node in model.graph.nodes:
        caller = node.meta.get(CALLER)
        if node.op not in ("call_function", "call_method") or not caller:
            continue
        if within(caller, float_paths):
            path = f"float_call_{len(hidden)}"
            model.add_submodule(path, FloatCall(node.target))
            node.op, node.target = "call_module", path
            hidden.append(path)
    model.recompile()
    return tuple(hidden)


def check_lists(prepared: GraphModule, name: str) -> None:
    """Refuse lists of tensors that are passed on as a whole, because observers see one tensor.

    Args:
        prepared: Module with observers.
        name: Name of the model.

    Raises:
        UserError: There is such a list.
    """
    observed = (n.all_input_nodes[0] for n in prepared.graph.nodes if _observer(prepared, n))
    source = next(filter(None, map(_list_source, observed)), None)
    if source is not None:
        raise UserError(
            f"{name} passes on the result of {source}() as a whole, but FX quantization handles "
            "single tensors. Use the parts one by one (first, second = x.chunk(2, dim=1)), or "
            "move the lines into a separate module, to be left in float32 with keep_float in its "
            "recipe."
        )


def _list_source(node: Node) -> str | None:
    """Name of the function whose list, or part of a list, a node is; None if it is not a list."""
    if node.target is operator.getitem and isinstance(node.args[1], slice):
        return _list_source(node.all_input_nodes[0])
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name if node.op != "call_module" and name in _LISTS else None


def clips(prepared: GraphModule) -> bool:
    """Whether a concatenation would clip inputs to the fixed range of its first one.

    All inputs share the first one's observer, and the range of a sigmoid or tanh is 0 to 1 or
    -1 to 1.
    """
    return any(
        node.target is torch.cat
        and any(isinstance(o, FixedQParamsObserver) for o in _observers(prepared, node))
        for node in prepared.graph.nodes
    )


def hide_float_functions(prepared: GraphModule) -> None:
    """Replace functions that stay float32 by ones that torch.ao does not know, in place.

    Its lowering makes them int8 wherever int8 values surround them. A concatenation then uses the
    scale of its first input for all, so it may only become int8 if one observer determines the
    scale of all inputs and the output.
    """
    for node in prepared.graph.nodes:
        if node.target is F.layer_norm:
            node.target = _float_layer_norm
        elif node.target is torch.cat and len(_observers(prepared, node)) > 1:
            node.target = _float_cat
    prepared.recompile()


def _observers(prepared: GraphModule, node: Node) -> set[nn.Module]:
    """Observers of the inputs and the output of a node."""
    observers = {_observer(prepared, each) for each in (*node.all_input_nodes, *node.users)}
    return {module for module in observers if module is not None}


def _observer(prepared: GraphModule, node: Node) -> nn.Module | None:
    """The observer that a node calls, if it calls one."""
    if node.op != "call_module":
        return None
    module = prepared.get_submodule(str(node.target))
    return module if isinstance(module, ObserverBase | FakeQuantizeBase) else None
