"""Operators with a size that is open: the number of images, in a class token for each of them.

``torch.jit.trace`` follows a size that a user passes to ``x.expand(n, -1, -1)``, and loses one that
is passed to the ATen operator itself: the file would hold for as many images as it was traced with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ptqbench.quantization.canonical.aten_nodes import operator_name


def has_open_sizes(node: Node) -> bool:
    """Whether an argument of a node is a size that depends on the images."""
    values = (each.meta.get("val") for each in node.all_input_nodes)
    return any(isinstance(value, torch.SymInt) for value in values)


def spell(node: Node) -> tuple[str, str | Callable[..., Any]] | None:
    """Return how a user writes an ATen operator: as a method or as a function of torch.

    Args:
        node: Calls an ATen operator.

    Returns:
        ``call_method`` and its name, or ``call_function`` and the function; None if there is none.
    """
    target: Any = node.target
    name, first = operator_name(node), next(iter(target._schema.arguments), None)
    if first is not None and first.name == "self" and hasattr(Tensor, name):
        return "call_method", name
    function = getattr(torch, name, None)
    return None if function is None else ("call_function", function)
