"""Read nodes of an ATen graph: arguments by name, module path, line of the user's code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node

from ptqbench.core.user_code import CodeLine
from ptqbench.quantization.canonical.capture import PREFIX

_TORCH = Path(torch.__file__).parent
_PACKAGE = Path(__file__).parents[2]
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module of the user's model.

    Attributes:
        path: Module path; empty: the model itself.
        kind: Qualified name of its class.
        key: Differs from call to call.
    """

    path: str
    kind: str
    key: str


def operator_name(node: Node) -> str:
    """Return the name of an operator without overload and underscore: ``add`` for ``add_.Tensor``.

    Functions of Python, as ``getitem``, have their own name.
    """
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        namespace, _, name = target._schema.name.partition("::")
        name = name if name.startswith("_") or not name.endswith("_") else name[:-1]
        return name if namespace == "aten" else f"{namespace}::{name}"
    return getattr(target, "__name__", str(target))


def is_mutable(node: Node) -> bool:
    """Whether a node writes into one of its inputs."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def is_view(node: Node) -> bool:
    """Whether the output of a node may share memory with its first input."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return operator_name(node) == "getitem"
    return any(each.alias_info is not None for each in target._schema.returns)


def arguments(node: Node) -> dict[str, Any]:
    """Return all arguments of an ATen operator by name, defaults filled in."""
    assert isinstance(node.target, torch._ops.OpOverload)
    values: dict[str, Any] = {}
    for index, argument in enumerate(node.target._schema.arguments):
        if index < len(node.args):
            values[argument.name] = node.args[index]
        else:
            values[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return values


def module_call(node: Node) -> ModuleCall:
    """Return the innermost module whose forward a node belongs to."""
    calls = list((node.meta.get("nn_module_stack") or {}).items())
    for key, (path, kind) in reversed(calls):
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if path == PREFIX.rstrip("."):
            return ModuleCall("", name, key)
        if path.startswith(PREFIX):
            # A module that is called several times has "@1", "@2" behind its path.
            return ModuleCall(path.removeprefix(PREFIX).partition("@")[0], name, key)
    return ModuleCall("", "", "")


def code_line(node: Node) -> CodeLine | None:
    """Return the innermost line of the user's code that a node comes from."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    for file, number in reversed(frames):
        path = Path(file)
        if not (path.is_relative_to(_TORCH) or path.is_relative_to(_PACKAGE)):
            return CodeLine(file, int(number))
    return None


def place(node: Node) -> str:
    """Say where in the user's model a node comes from, for messages."""
    call, line = module_call(node), code_line(node)
    where = f"in the module {call.path!r}" if call.path else "in the model's forward"
    return f"{where} at {line}" if line else where


def reshape_sizes(node: Node) -> tuple[int, ...] | None:
    """Return the sizes that a node reshapes to, -1 for the one that depends on the batch.

    A graph that multiplies and divides sizes becomes one that does not.

    Args:
        node: Of a captured graph.

    Returns:
        The sizes; None if several depend on the batch.
    """
    value = node.meta.get("val")
    if value is None:
        return None
    sizes = [size if isinstance(size, int) else -1 for size in value.shape]
    return tuple(sizes) if sizes.count(-1) <= 1 else None


def live(nodes: list[Node]) -> list[Node]:
    """Return the nodes that the output depends on, in order, with all that write into memory."""
    needed = {n for n in nodes if n.op in ("output", "placeholder") or is_mutable(n)}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in nodes if node in needed]


def only_output(node: Node) -> Any:
    """Return the first thing that the output node of a graph returns."""
    (outputs,) = node.args
    return outputs[0] if isinstance(outputs, tuple | list) else outputs
