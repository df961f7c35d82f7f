"""FX graph mode: prepare by tracing, fusing and observing; convert after calibration."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import QConfigMapping, get_default_qconfig_mapping
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.fx import GraphModule
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_linear_bn_eval

from ptqbench.quantization.fusion_groups import (
    FUNCTIONS,
    fusable_groups,
    is_function,
    relu6_outputs,
    replace_relu6,
    within,
)
from ptqbench.quantization.fx_tracing import Tracer, untraceable_leaves
from ptqbench.quantization.qconfig import make_qconfig
from ptqbench.quantization.torch_ao_fixes import (
    check_lists,
    clips,
    hide_float_calls,
    hide_float_functions,
)
from ptqbench.quantization.torch_warnings import known_deprecations_ignored
from ptqbench.recipes import CompletedRecipe
from ptqbench.recipes.recipe import Group

_FLOAT: tuple[Any, ...] = (nn.LayerNorm, F.layer_norm, nn.PReLU)
"""Always run in float32: LayerNorm in int8 loses more accuracy than the conversions around it cost
time, and the int8 kernel of PReLU multiplies positive values too (torch 2.13)."""
_LOWERED_ANYWAY = (
    *(nn.LayerNorm, nn.BatchNorm2d, nn.BatchNorm3d, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.PReLU),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
"""torch.ao's lowering makes these int8 wherever int8 values surround them, even if their qconfig
says float32, and then passes int8 values to readers that need float32."""
_FLOAT_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"Float{kind.__name__}", (kind,), {"__doc__": f"{kind.__name__} in float32."})
    for kind in _LOWERED_ANYWAY
}


def qconfig_mapping(
    recipe: CompletedRecipe, relu6: frozenset[str], *, saturates: bool
) -> QConfigMapping:
    """Map modules to their qconfigs.

    Operators with a fixed output range (sigmoid, hard-sigmoid, …) and those that only move data
    have torch's default entries; everything else follows the recipe.
    """
    mapping = get_default_qconfig_mapping("x86")
    mapping.set_global(make_qconfig(recipe.recipe, saturates=saturates))
    for kind in _FLOAT:
        mapping.set_object_type(kind, None)
    for name in relu6:
        mapping.set_module_name(name, make_qconfig(recipe.recipe, saturates=saturates, relu6=True))
    for name in recipe.keep_float:
        for function in FUNCTIONS.get(name, ()):
            mapping.set_object_type(function, None)
        if not is_function(name):
            mapping.set_module_name(name, None)
    return mapping


def prepare(
    model: nn.Module, recipe: CompletedRecipe, example: Tensor, *, saturates: bool
) -> nn.Module:
    """Prepare a fused copy of ``model`` with observers.

    Args:
        model: Float32, traceable by FX.
        recipe: Its completed recipe.
        example: One input, ``N×C×H×W`` float32.
        saturates: See :func:`ptqbench.quantization.qconfig.make_qconfig`.

    Returns:
        The prepared module, ready for calibration.

    Raises:
        UserError: The model lacks a group, or passes on lists of tensors as a whole.
    """
    groups = fusable_groups(model, recipe, saturates=saturates)
    relu6 = relu6_outputs(model, groups)
    model = copy.deepcopy(model).eval()
    replace_relu6(model, groups)
    whole = (*hide_float_modules(model, recipe), *hide_float_calls(model, recipe.keep_float))
    with known_deprecations_ignored(), _no_stack_traces():
        mapping = qconfig_mapping(recipe, relu6, saturates=saturates)
        try:
            prepared = _prepare(fold_linear(model, groups, whole), mapping, example, whole)
        except Exception:  # FX raises whatever the traced code does with a stand-in
            leaves = untraceable_leaves(model, recipe.keep_float)
            if not leaves:
                raise
            whole = (*whole, *leaves)
            prepared = _prepare(fold_linear(model, groups, whole), mapping, example, whole)
        if clips(prepared):
            mapping.set_object_type(torch.cat, None)
            prepared = _prepare(fold_linear(model, groups, whole), mapping, example, whole)
        check_lists(prepared, recipe.model)
        hide_float_functions(prepared)
        return prepared


def _prepare(
    model: nn.Module, mapping: QConfigMapping, example: Tensor, whole: Iterable[str]
) -> GraphModule:
    custom = PrepareCustomConfig()
    custom.set_non_traceable_module_names(list(whole))
    prepared: GraphModule = prepare_fx(model, mapping, (example,), custom)
    return prepared


def fold_linear(model: nn.Module, groups: Iterable[Group], whole: Iterable[str]) -> nn.Module:
    """Fold BatchNorms into linear layers that are also fused with a ReLU.

    torch.ao fuses a linear layer with its BatchNorm or with its ReLU, not with both.

    Args:
        model: Float32, evaluation mode; its linear layers are replaced.
        groups: All fusion groups.
        whole: Paths of the modules that are not traced into.

    Returns:
        The model itself if there is no such layer, else its graph without the BatchNorms.
    """
    modules = dict(model.named_modules())
    both = [g for g in groups if len(g) > 2 and isinstance(modules[g[0]], nn.Linear)]
    if not both:
        return model
    traced = GraphModule(model, Tracer(whole).trace(model))
    for first, batch_norm, *_ in both:
        linear: Any = traced.get_submodule(first)
        norm: Any = traced.get_submodule(batch_norm)
        traced.set_submodule(first, fuse_linear_bn_eval(linear, norm))
        for node in list(traced.graph.nodes):
            if node.op == "call_module" and node.target == batch_norm:
                node.replace_all_uses_with(node.args[0])
                traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def hide_float_modules(model: nn.Module, recipe: CompletedRecipe) -> tuple[str, ...]:
    """Give modules that stay float32 a class that torch.ao does not know, in place.

    Returns:
        Their paths; they are not to be traced into.
    """
    fused = {name for group in recipe.groups for name in group}
    hidden = []
    for name, module in model.named_modules():
        kind = type(module)
        stays_float = name not in fused and within(name, recipe.keep_float)
        if kind in _FLOAT_CLASSES and (stays_float or kind in _FLOAT):
            module.__class__ = _FLOAT_CLASSES[kind]
            hidden.append(name)
        elif isinstance(module, nn.LayerNorm | torch.jit.ScriptModule):
            hidden.append(name)
    return tuple(hidden)


@contextmanager
def _no_stack_traces() -> Iterator[None]:
    """Trace without a Python stack for each node; these are unused and cost seconds."""
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
    """Convert to the int8 module, its weights packed for the current engine."""
    assert isinstance(prepared, GraphModule)
    with torch.no_grad(), known_deprecations_ignored():
        converted: nn.Module = convert_fx(prepared)
    return converted
