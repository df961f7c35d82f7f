"""FX graph mode: trace, fuse, observe; after calibration, convert."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import QConfigMapping, get_default_qconfig_mapping
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.fx import GraphModule
from torch.nn import functional as F

from ptqbench.quantization.deprecations import known_deprecations_ignored
from ptqbench.quantization.fusion import (
    fusable_groups,
    relu6_outputs,
    replace_relu6,
    within,
)
from ptqbench.quantization.observers import make_qconfig
from ptqbench.recipes import Recipe

_FLOAT: tuple[Any, ...] = (nn.LayerNorm, F.layer_norm)
"""Run in float32 always: their int8 kernels lose more than the conversions around them cost."""
_LOWERED_ANYWAY = (
    *(nn.LayerNorm, nn.BatchNorm2d, nn.BatchNorm3d, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.PReLU),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
"""torch.ao's lowering makes these int8 wherever int8 values surround them, even if their qconfig
says float32, and then hands int8 values to readers that want float32."""
_FLOAT_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"Float{kind.__name__}", (kind,), {"__doc__": f"{kind.__name__} in float32."})
    for kind in _LOWERED_ANYWAY
}


def qconfig_mapping(recipe: Recipe, relu6: frozenset[str], *, saturates: bool) -> QConfigMapping:
    """Which qconfig each module gets.

    Operators with a fixed output range (sigmoid, hard-sigmoid, …) and those that only
    move data keep torch's own entries; everything else follows the recipe.
    """
    mapping = get_default_qconfig_mapping("x86")
    mapping.set_global(make_qconfig(recipe, saturates=saturates))
    for kind in _FLOAT:
        mapping.set_object_type(kind, None)
    for name in relu6:
        mapping.set_module_name(name, make_qconfig(recipe, saturates=saturates, relu6=True))
    for name in recipe.keep_float:
        mapping.set_module_name(name, None)
    return mapping


def prepare(model: nn.Module, recipe: Recipe, example: Tensor, *, saturates: bool) -> nn.Module:
    """A fused copy of ``model`` with observers.

    Args:
        model: Float32, traceable by FX.
        recipe: Its recipe.
        example: One input, ``N×C×H×W`` float32.
        saturates: See :func:`ptqbench.quantization.observers.make_qconfig`.

    Returns:
        The prepared module, ready for calibration.

    Raises:
        UserError: Groups that the model does not have.
    """
    groups = fusable_groups(model, recipe, saturates=saturates)
    relu6 = relu6_outputs(model, groups)
    model = copy.deepcopy(model).eval()
    replace_relu6(model, groups)
    custom = PrepareCustomConfig()
    custom.set_non_traceable_module_classes(_hide_float_modules(model, recipe))
    with known_deprecations_ignored(), _no_stack_traces():
        mapping = qconfig_mapping(recipe, relu6, saturates=saturates)
        prepared: nn.Module = prepare_fx(model, mapping, (example,), custom)
    return prepared


def _hide_float_modules(model: nn.Module, recipe: Recipe) -> list[type[nn.Module]]:
    """Give modules that stay float32 a class that torch.ao does not know, in the model itself.

    Returns:
        The classes, which are not to be traced into.
    """
    fused = {name for group in recipe.groups for name in group}
    hidden: dict[type[nn.Module], None] = {}
    for name, module in model.named_modules():
        kind = type(module)
        if isinstance(module, nn.LayerNorm) or (
            kind in _LOWERED_ANYWAY and name not in fused and within(name, recipe.keep_float)
        ):
            if kind in _LOWERED_ANYWAY:
                module.__class__ = kind = _FLOAT_CLASSES[kind]
            hidden[kind] = None
    return list(hidden)


@contextmanager
def _no_stack_traces() -> Iterator[None]:
    """Trace without a Python stack for each node: nobody reads them, and they cost seconds."""
    config: Any = getattr(torch.fx, "config", None)
    if not hasattr(config, "do_not_emit_stack_traces"):  # before torch 2.9
        yield
        return
    before = config.do_not_emit_stack_traces
    config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before


def convert(prepared: nn.Module) -> nn.Module:
    """The int8 module, its weights packed for the engine that is set now."""
    assert isinstance(prepared, GraphModule)
    with torch.no_grad(), known_deprecations_ignored():
        converted: nn.Module = convert_fx(prepared)
    return converted
