"""Complete recipes from a model's graph: fusion groups, counts, names.

A recipe need not declare its fusion groups and the number of int8 layers, and may use wildcards for
what stays float32. All three follow from the model. The groups determined here by following values
through the graph (``fusion_search``) are fused by torch.ao's patterns in the FX flow, and the gate
``fusion`` compares the two.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ptqbench.core.names import is_within, nearest
from ptqbench.errors import UserError
from ptqbench.quantization import eager
from ptqbench.quantization.fusion_groups import FUNCTIONS, is_function, within
from ptqbench.quantization.fusion_search import Pattern, layer_calls
from ptqbench.quantization.fx_tracing import check_decisions, has_stubs, trace
from ptqbench.recipes.recipe import CompletedRecipe, Flow, Group, Recipe

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYER_FUNCTIONS = (F.conv1d, F.conv2d, F.conv3d, F.linear)


def complete_recipe(
    recipe: Recipe | CompletedRecipe,
    model: nn.Module,
    example: Tensor,
    *,
    original: nn.Module | None = None,
) -> CompletedRecipe:
    """Determine everything that a recipe leaves open from the model's graph.

    The model is only traced if something is open. Where the groups are, a model with stubs is
    taken through the eager flow, and scripted modules stay float32.

    Args:
        recipe: Recipe of the model; a completed one is returned as it is.
        model: Float32, evaluation mode; it is not changed.
        example: One input, ``N×C×H×W`` float32; only the eager flow runs it.
        original: The user's model, whose modules ``keep_float`` names; None: ``model``.

    Raises:
        UserError: The model cannot be traced, has no layer that could become int8 or is written
            for the other flow, ``keep_float`` matches nothing in it, or the eager flow is set
            but there is no quantizable variant.
    """
    if isinstance(recipe, CompletedRecipe):
        return recipe
    flow, keep_float = recipe.flow, recipe.keep_float
    if recipe.fusion is None:
        flow = "eager" if has_stubs(model) else flow
        keep_float = tuple(dict.fromkeys((*keep_float, *scripted(model))))
    elif has_stubs(model) and flow == "fx":
        raise UserError(
            f"{recipe.model} has QuantStubs and so is written for eager mode, but its recipe says "
            'flow = "fx". Set it to "eager", or take the stubs out of the model.'
        )
    keep_float = resolve_names(keep_float, original or model)
    keep_float = tuple(dict.fromkeys((*keep_float, *_transposed(model, keep_float))))
    groups, int8_modules = recipe.fusion, recipe.int8_modules
    if groups is None or int8_modules is None:
        traced = trace(unfused(model, recipe.model, flow, example), keep_float=keep_float)
        check_decisions(model, example, traced)
        if groups is None:
            groups = fusion_groups(traced, functions=flow == "fx")
        if int8_modules is None:
            int8_modules = len(int8_layers(traced, keep_float))
        if not int8_modules:
            raise UserError(
                f"There is nothing to quantize: {recipe.model} has no convolution or linear layer "
                f"that could become int8{' besides those in keep_float' if keep_float else ''}."
            )
    return CompletedRecipe(recipe, groups, int8_modules, keep_float, flow)


def check_count(recipe: CompletedRecipe, model: nn.Module) -> None:
    """Check that a recipe declares as many int8 layers as its model has.

    After a change of ``keep_float`` or of the model the count may be out of date. A model that
    cannot be traced is not counted.

    Args:
        recipe: Completed recipe of a custom model.
        model: Float32, evaluation mode.

    Raises:
        UserError: The counts differ.
    """
    try:
        traced = trace(model, keep_float=recipe.keep_float)
    except UserError:
        return
    count = len(int8_layers(traced, recipe.keep_float))
    if recipe.int8_modules != count:
        names = ", ".join(recipe.keep_float)
        exceptions = f" with keep_float = [{names}]" if names else ""
        raise UserError(
            f"The recipe of {recipe.model} promises {recipe.int8_modules} int8 layers, but the "
            f"model has {count}{exceptions}. Set int8_modules = {count} in it, or leave that out."
        )


def unfused(model: nn.Module, name: str, flow: Flow, example: Tensor) -> nn.Module:
    """The float model whose graph shows the fusion groups of a flow.

    In the eager flow that is the quantizable variant, which may have modules where the plain
    model calls functions, or two where the plain one uses the same twice.

    Args:
        model: Float32, evaluation mode.
        name: Name of the architecture.
        flow: ``fx`` or ``eager``.
        example: One input, ``N×C×H×W`` float32.
    """
    return eager.quantizable_copy(model, name, example) if flow == "eager" else model


def resolve_names(names: tuple[str, ...], model: nn.Module) -> tuple[str, ...]:
    """Resolve names and wildcards to modules, in the model's order, followed by functions.

    A module below another one in the result is omitted.

    Raises:
        UserError: A name or pattern matches no module.
    """
    if not names:
        return ()
    known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    functions = [name for name in names if is_function(name)]
    for name in functions:
        if name not in FUNCTIONS:
            raise UserError(
                f"keep_float names the function {name!r}, which ptqbench does not know as one "
                f"that could be int8. {nearest(name, list(FUNCTIONS))}"
            )
    selected: set[str] = set()
    for pattern in names:
        if pattern in functions:
            continue
        matched = fnmatch.filter(known, pattern)
        if not matched:
            raise UserError(
                f"keep_float names {pattern!r}, but the model has no such module. "
                f"{nearest(pattern, known)}"
            )
        selected.update(matched)
    modules = (
        name
        for name in known
        if name in selected and not any(is_within(name, other) for other in selected - {name})
    )
    return (*modules, *dict.fromkeys(functions))


def fusion_groups(traced: fx.GraphModule, *, functions: bool = True) -> tuple[Group, ...]:
    """Find the fusion groups of a traced float model, in the order of its layers.

    A ReLU6 module is part of a group only if all its calls end one, because a ReLU replaces it
    there.

    Args:
        traced: Float32.
        functions: Whether a group may contain a function, written ``<relu>``; eager mode only
            fuses modules.
    """
    every = layer_calls(traced)
    _check_shared(every)
    patterns = tuple(dict.fromkeys(pattern for pattern in every if len(pattern.modules) > 1))
    calls = Counter(str(n.target) for n in traced.graph.nodes if n.op == "call_module")
    endings = Counter(p.modules[-1] for p in patterns if p.activation == "relu6")
    groups = (_group(pattern, calls, endings, functions) for pattern in patterns)
    return tuple(dict.fromkeys(group for group in groups if len(group) > 1))


def scripted(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of a model's scripted modules, which torch.fx cannot trace into."""
    return tuple(n for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule))


def _transposed(model: nn.Module, keep_float: tuple[str, ...]) -> Iterator[str]:
    """Transposed convolutions: torch's int8 kernel takes the scales of channels wrongly."""
    for name, module in model.named_modules():
        if isinstance(module, _TRANSPOSED) and not within(name, keep_float):
            yield name


def _check_shared(calls: Iterable[Pattern]) -> None:
    """Refuse a layer that is called several times with different successors.

    Fusing moves the successor of one call into the layer itself, and so behind its other calls.
    """
    behind: dict[str, dict[tuple[str, ...], None]] = {}
    for pattern in calls:
        behind.setdefault(pattern.modules[0], {})[pattern.modules[1:]] = None
    for name, successors in behind.items():
        if len(successors) > 1:
            texts = [" + ".join(modules) or "nothing to fuse" for modules in successors]
            raise UserError(
                f"The layer {name!r} is called several times, followed by "
                f"{' and by '.join(texts)}: fusing one of them would change the other calls. Give "
                "the model one layer for each, which may share their weights, or put the same "
                "behind every call."
            )


def _group(pattern: Pattern, calls: Counter[str], endings: Counter[str], functions: bool) -> Group:
    last = pattern.modules[-1]
    if is_function(last):
        named = functions and pattern.activation == "relu"
    else:
        named = pattern.activation != "relu6" or endings[last] == calls[last]
    return pattern.modules if named else pattern.modules[:-1]


def int8_layers(traced: fx.GraphModule, keep_float: Iterable[str] = ()) -> tuple[str, ...]:
    """List the convolutions and linear layers of a traced model that become int8, once per call.

    Args:
        traced: Float32.
        keep_float: Paths of modules that stay float32, with all below them.
    """
    float_paths = tuple(keep_float)
    modules = dict(traced.named_modules(remove_duplicate=False))
    layers = [_layer(node, modules) for node in traced.graph.nodes]
    return tuple(name for name in layers if name and not within(name, float_paths))


def _layer(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """Path of the module whose weights a node multiplies with; empty if there is none."""
    if node.op == "call_module":
        # As torch.ao does: a subclass computes something else.
        kind = type(modules[str(node.target)])
        return str(node.target) if kind in _LAYERS else ""
    if node.op == "call_function" and node.target in _LAYER_FUNCTIONS:
        weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            return str(weight.target)
    return ""
