"""Fold what does not depend on the images, and refuse what is not the same twice."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node

from ptqbench.errors import UserError
from ptqbench.quantization.canonical.aten_nodes import (
    arguments,
    is_mutable,
    operator_name,
    place,
)

_DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})


def fold_constants(graph: fx.Graph, values: Mapping[str, Tensor]) -> dict[str, Any]:
    """Compute every node that only depends on parameters, buffers and constant tensors.

    Args:
        graph: Captured.
        values: By the name of their placeholder.

    Returns:
        All constants by the name of their node.

    Raises:
        UserError: The model draws random numbers.
    """
    constants: dict[str, Any] = dict(values)
    with torch.no_grad():
        for node in graph.nodes:
            if node.op != "call_function":
                continue
            check_deterministic(node)
            if not _is_foldable(node, constants):
                continue

            def value(argument: Node) -> Any:
                return constants[argument.name]

            function: Any = node.target
            inputs, options = fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)
            constants[node.name] = function(*inputs, **options)
    return constants


def _is_foldable(node: Node, constants: Mapping[str, Any]) -> bool:
    if is_mutable(node) or any(each.name not in constants for each in node.all_input_nodes):
        return False
    return isinstance(node.target, torch._ops.OpOverload) or node.target is operator.getitem


def is_idle_dropout(node: Node) -> bool:
    """Whether a node is a dropout that passes on its input."""
    if operator_name(node) not in _DROPOUTS:
        return False
    values = arguments(node)
    return not values["train"] or not values["p"]


def check_deterministic(node: Node) -> None:
    """Refuse an operator that draws random numbers.

    Raises:
        UserError: It does.
    """
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return
    if torch.Tag.nondeterministic_seeded in target.tags and not _is_idle(node):
        raise UserError(
            f"The model is not the same twice: {operator_name(node)} {place(node)} is active in "
            "evaluation. Pass training=self.training to functional dropout or use nn.Dropout, and "
            "leave out in evaluation whatever else draws random numbers."
        )


def _is_idle(node: Node) -> bool:
    """Whether an operator that could draw random numbers does not, by its arguments.

    So do dropouts, attention, recurrent layers (dropout between them) and RReLU.
    """
    values = arguments(node)
    training = [values[name] for name in ("train", "training") if name in values]
    shares = [values[name] for name in ("p", "dropout", "dropout_p") if name in values]
    return any(value is False for value in training) or any(share == 0 for share in shares)
