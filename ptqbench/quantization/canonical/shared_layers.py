"""Give every call of a layer a layer of its own, where different operators follow the calls.

Fusing moves what follows a call into the layer. Of a convolution that is called twice, followed by
a ReLU once (or by another BatchNorm each time, as in heads that levels share), neither could be
fused.
"""

from __future__ import annotations

import copy

from torch import fx, nn
from torch.fx import Node

from ptqbench.quantization.fusion_search import layer_calls

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

CALL = ".call_"
"""What stands between the path of a layer and the number of the call, counted from 1."""


def separate_calls(model: fx.GraphModule) -> None:
    """Separate the calls of layers that are followed by different operators, in place.

    The copies are below the path of the layer, so that it still names all of them. Each becomes
    int8 with what follows it, and is stored on its own.

    Args:
        model: Lifted and simplified.
    """
    calls: dict[str, list[Node]] = {}
    for node in model.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    behind: dict[str, dict[tuple[str, ...], None]] = {}
    for pattern in layer_calls(model):
        behind.setdefault(pattern.modules[0], {})[pattern.modules[1:]] = None
    for path, successors in behind.items():
        if len(successors) > 1:
            _separate(model, path, calls[path])
            for follower in dict.fromkeys(name for names in successors for name in names):
                norm = isinstance(_module(model, follower), _BATCH_NORMS)
                if norm and len(calls[follower]) > 1:
                    _separate(model, follower, calls[follower])
    model.recompile()


def _separate(model: fx.GraphModule, path: str, calls: list[Node]) -> None:
    layer = model.get_submodule(path)
    model.set_submodule(path, nn.Module())
    for number, node in enumerate(calls, 1):
        name = f"{path}{CALL}{number}"
        model.add_submodule(name, copy.deepcopy(layer))
        node.target = name


def _module(model: fx.GraphModule, path: str) -> nn.Module | None:
    """The module at a path; None for a function, written as ``<relu>``."""
    return None if path.startswith("<") else model.get_submodule(path)
