"""Places of layers in the canonical model: the module paths of the user's model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ptqbench.core.names import is_within

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True)
class Layer:
    """A layer of the canonical model.

    Attributes:
        operator: Name of the operator that it stands for.
        module: One of torch's own.
    """

    operator: str
    module: nn.Module

    def equals(self, other: Layer) -> bool:
        """Whether two layers compute the same."""
        mine, theirs = self.module, other.module
        if self.operator != other.operator or type(mine) is not type(theirs):
            return False
        left, right = mine.state_dict(), theirs.state_dict()
        return (
            mine.extra_repr() == theirs.extra_repr()
            and left.keys() == right.keys()
            and all(torch.equal(left[key], right[key]) for key in left)
        )


class Paths:
    """Gives every layer the path of the module that it comes from, as far as that is free.

    Args:
        used: Paths of the modules that the graph's operators belong to.
    """

    def __init__(self, used: Iterable[str]) -> None:
        self._used = sorted(set(used))
        self._layers: dict[str, Layer] = {}

    def place(self, root: nn.Module, caller: nn.Module, path: str, layer: Layer) -> str:
        """Add a layer to a model, or find the same one there.

        Args:
            root: The model.
            caller: The user's module whose forward calls the operator.
            path: Its path.
            layer: What it becomes in the canonical model.

        Returns:
            The path of the caller if it is that layer and has nothing inside that computes; else
            the layer becomes a part of it, with the operator's name.
        """
        inside = any(p != path and is_within(p, path) for p in self._used)
        is_layer = path and not inside and isinstance(caller, (*_LAYERS, type(layer.module)))
        part = f"{path}.{layer.operator}" if path else layer.operator
        name, number = path if is_layer else part, 0
        while name in self._layers:
            if self._layers[name].equals(layer):
                return name
            number += 1
            name = f"{part}_{number}"
        self._layers[name] = layer
        _add(root, name, layer.module)
        return name


def _add(root: nn.Module, path: str, layer: nn.Module) -> None:
    parent = root
    *folders, name = path.split(".")
    for folder in folders:
        child = getattr(parent, folder, None)
        if not isinstance(child, nn.Module):
            child = nn.Module()
            parent.add_module(folder, child)
        parent = child
    parent.add_module(name, layer)
