"""Search a float model's graph for what could be fused.

Deliberately independent of the fusion itself: it follows values through the traced graph
(torch.fx) and knows nothing of recipes, fusion groups or torch.ao's patterns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.ao.quantization import FakeQuantizeBase, ObserverBase
from torch.nn import functional as F

from ptqbench.quantization.fx_tracing import Tracer

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_RELU_FUNCTIONS = (F.relu, torch.relu, torch.relu_)
_RELU6_FUNCTIONS = (F.relu6, F.hardtanh)


@dataclass(frozen=True)
class Pattern:
    """Modules that one kernel could execute.

    Attributes:
        modules: Paths in order; a function instead of a module is ``<relu>``.
        activation: Final activation: ``relu``, ``relu6`` or empty.
        batch_norm: Whether it contains a BatchNorm.
    """

    modules: tuple[str, ...]
    activation: str
    batch_norm: bool

    @property
    def has_kernel(self) -> bool:
        """Whether torch's engines can fuse it; they have no kernel with a ReLU6."""
        return self.batch_norm or self.activation == "relu"

    @property
    def allowed(self) -> tuple[tuple[str, ...], ...]:
        """Groups that fuse as much as possible.

        A ReLU6 may be replaced by a capped ReLU or left alone, and a function need not be named in
        a group.
        """
        if self.activation == "relu6" or not self.is_nameable:
            return (self.modules, self.modules[:-1])
        return (self.modules,)

    @property
    def is_nameable(self) -> bool:
        """Whether it consists of modules only."""
        return not self.modules[-1].startswith("<")

    def extends(self, group: tuple[str, ...]) -> bool:
        """Whether it begins with ``group``."""
        return self.modules[: len(group)] == group

    def __str__(self) -> str:
        return " + ".join(self.modules)


def fusable(model: nn.Module) -> tuple[Pattern, ...]:
    """Find all convolutions and linear layers that are directly followed by something fusable.

    Args:
        model: Float32, plain, fused, or prepared with observers.

    Raises:
        Exception: Whatever FX raises if a model cannot be traced.
    """
    patterns = (pattern for pattern in layer_calls(model) if len(pattern.modules) > 1)
    return tuple(dict.fromkeys(patterns))


def layer_calls(model: nn.Module) -> tuple[Pattern, ...]:
    """Find every call of a convolution or linear layer, with what it could be fused with.

    Args:
        model: Float32, plain, fused, or prepared with observers.

    Raises:
        Exception: Whatever FX raises if a model cannot be traced.
    """
    graph = model.graph if isinstance(model, fx.GraphModule) else Tracer().trace(model)
    modules = dict(model.named_modules())
    patterns = []
    for node in graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, _CONVOLUTIONS + _TRANSPOSED + (nn.Linear,)):
            patterns.append(_follow(node, layer, modules))
    return tuple(patterns)


def _follow(node: fx.Node, layer: nn.Module, modules: dict[str, nn.Module]) -> Pattern:
    names, batch_norm, activation = [str(node.target)], False, ""
    after = _only_user(node, modules)
    if after is not None and isinstance(_of(after, modules), _BATCH_NORM):
        names.append(str(after.target))
        batch_norm = True
        after = _only_user(after, modules)
    if after is not None and not isinstance(layer, _TRANSPOSED):
        activation = _activation(after, modules)
        if activation:
            called = after.op == "call_module"
            names.append(str(after.target) if called else f"<{activation}>")
    return Pattern(tuple(names), activation, batch_norm)


def _only_user(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The only node that reads a value, skipping observers and ``Identity``."""
    users = list(node.users)
    if len(users) != 1:
        return None
    if isinstance(_of(users[0], modules), ObserverBase | FakeQuantizeBase | nn.Identity):
        return _only_user(users[0], modules)
    return users[0]


def _of(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules.get(str(node.target)) if node.op == "call_module" else None


def _activation(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    module = _of(node, modules)
    if isinstance(module, nn.ReLU6) or node.target in _RELU6_FUNCTIONS:
        return "relu6"
    if isinstance(module, nn.ReLU) or node.target in _RELU_FUNCTIONS:
        return "relu"
    return "relu" if node.op == "call_method" and node.target in {"relu", "relu_"} else ""
