"""Fusion groups by module name, and the treatment of ReLU6 in them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ptqbench.core.names import is_within
from ptqbench.errors import UserError
from ptqbench.recipes.recipe import CompletedRecipe, Group

FUNCTIONS: Mapping[str, tuple[Any, ...]] = {
    "<add>": (operator.add, operator.iadd, torch.add, "add", "add_"),
    "<mul>": (operator.mul, operator.imul, torch.mul, "mul", "mul_"),
    "<cat>": (torch.cat,),
}
"""Functions that ``keep_float`` can name, as they occur in graphs: all their calls stay float32."""


def is_function(name: str) -> bool:
    """Whether a name in a recipe is a function (``<relu>``) rather than a module."""
    return name.startswith("<")


def check_groups(model: nn.Module, groups: Iterable[Group]) -> None:
    """Check that every group names modules of the model.

    Raises:
        UserError: A name is not in the model.
    """
    known = dict(model.named_modules())
    missing = sorted(
        {n for group in groups for n in group if n not in known and not is_function(n)}
    )
    if missing:
        raise UserError(
            f"The recipe's fusion groups name {len(missing)} modules that the model lacks, "
            f"first {missing[0]!r}: the recipe belongs to another architecture."
        )


def fusable_groups(
    model: nn.Module, recipe: CompletedRecipe, *, saturates: bool
) -> tuple[Group, ...]:
    """Return the recipe's groups, without the ReLU6 if a ReLU cannot replace it.

    Replacing it needs an observer that caps at 6, which layers in float do not have, and a kernel
    that clamps at the end of the observed range: it clamps at 255, so that 7-bit activations would
    let values up to twice the range pass.

    Args:
        model: Float32.
        recipe: Its completed recipe.
        saturates: Whether activations give up a bit, if the recipe chooses them for that.

    Raises:
        UserError: A group names a module that the model lacks.
    """
    check_groups(model, recipe.groups)
    seven_bits = saturates and recipe.recipe.spare_bit == "activations"
    return tuple(
        group[:-1]
        if _ends_in_relu6(model, group) and (seven_bits or within(group[0], recipe.keep_float))
        else group
        for group in recipe.groups
    )


def within(name: str, parents: Iterable[str]) -> bool:
    """Whether a module is one of ``parents`` or lies below one of them."""
    return any(is_within(name, parent) for parent in parents)


def relu6_outputs(model: nn.Module, groups: Iterable[Group]) -> frozenset[str]:
    """Return the names of the first modules of the groups that end in a ReLU6."""
    return frozenset(group[0] for group in groups if _ends_in_relu6(model, group))


def _ends_in_relu6(model: nn.Module, group: Group) -> bool:
    return not is_function(group[-1]) and isinstance(model.get_submodule(group[-1]), nn.ReLU6)


def replace_relu6(model: nn.Module, groups: Iterable[Group]) -> None:
    """Replace every ReLU6 that ends a group by a ReLU, in place.

    Only together with an observer that caps at 6 the function stays the same: see
    :class:`ptqbench.quantization.qconfig.CappedHistogramObserver`.
    """
    for group in groups:
        if _ends_in_relu6(model, group):
            parent, _, child = group[-1].rpartition(".")
            setattr(model.get_submodule(parent), child, nn.ReLU().train(model.training))
