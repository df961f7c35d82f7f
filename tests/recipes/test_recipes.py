"""Recipes against the models they are for, torchvision's own fusion, and FX's."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import fields, replace

import pytest
import torch
from torch import fx, nn
from torch.ao.quantization.quantize_fx import fuse_fx

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.package_data import SHIPPED
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES, CompletedRecipe, Recipe
from ptqbench.settings.thresholds import INSTRUCTION_SETS, Thresholds

NAMES = list(SHIPPED)
QUANTIZABLE = [name for name in SHIPPED if MODELS.get(name).quantizable is not None]
NORM_OR_ACTIVATION = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6)


def blank(name: str) -> nn.Module:
    """The architecture without memory behind its parameters."""
    with torch.device("meta"):
        return MODELS.get(name).factory(16).eval()


def firsts(recipe: Recipe) -> set[str]:
    return {group[0] for group in recipe.fusion}


def followers(recipe: Recipe) -> Counter[str]:
    return Counter(name for group in recipe.fusion for name in group[1:])


def test_every_model_has_a_recipe() -> None:
    names = MODELS.names()
    assert len(names) >= 80 and set(SHIPPED) < set(names)
    assert {name: RECIPES.get(name).model for name in RECIPES.names()} == {n: n for n in names}


@pytest.mark.parametrize("name", NAMES)
def test_groups_name_modules_that_fuse(name: str) -> None:
    modules = dict(blank(name).named_modules())
    for group in RECIPES.get(name).fusion:
        first, *rest = (modules[part] for part in group)
        assert isinstance(first, nn.Conv2d)
        kinds = [type(module) for module in rest]
        relu = kinds[-1:] if kinds[-1] in (nn.ReLU, nn.ReLU6) else []
        assert kinds in ([nn.BatchNorm2d, *relu], relu)
    assert len(firsts(RECIPES.get(name))) == len(RECIPES.get(name).fusion)


@pytest.mark.parametrize("name", NAMES)
def test_no_batch_norm_is_left_over(name: str) -> None:
    norms = [n for n, m in blank(name).named_modules() if isinstance(m, nn.BatchNorm2d)]
    fused = followers(RECIPES.get(name))
    assert {norm: fused[norm] for norm in norms} == dict.fromkeys(norms, 1)


@pytest.mark.parametrize("name", QUANTIZABLE)
def test_groups_are_those_that_torchvision_fuses(name: str) -> None:
    variant = MODELS.get(name).quantizable(16).eval()
    before = dict(variant.named_modules())
    variant.fuse_model()
    after = dict(variant.named_modules())
    # Fusing puts the fused module in the place of the first and nn.Identity in the others'.
    emptied = {n for n, m in after.items() if isinstance(m, nn.Identity) and m is not before.get(n)}
    replaced = {n for n, m in before.items() if isinstance(m, nn.Conv2d) and after.get(n) is not m}
    recipe = RECIPES.get(name)
    assert emptied == set(followers(recipe))
    assert replaced == firsts(recipe)


def relu_for_relu6(model: nn.Module) -> nn.Module:
    """FX has no pattern for ReLU6, but for the ReLU that stands for it."""
    for module in list(model.modules()):
        for child, kind in module.named_children():
            if isinstance(kind, nn.ReLU6):
                setattr(module, child, nn.ReLU())
    return model


def calls(graph: fx.GraphModule) -> Counter[str]:
    """How often each BatchNorm and activation is called."""
    return Counter(
        str(node.target)
        for node in graph.graph.nodes
        if node.op == "call_module"
        and isinstance(graph.get_submodule(str(node.target)), NORM_OR_ACTIVATION)
    )


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_those_that_fx_fuses(name: str) -> None:
    model = relu_for_relu6(MODELS.get(name).factory(16)).eval()
    before = calls(fx.symbolic_trace(model))
    after = calls(fuse_fx(copy.deepcopy(model)))
    # A module that is called twice (ResNet's ReLU, also after the addition) is fused once.
    assert before - after == followers(RECIPES.get(name))


@pytest.mark.parametrize("name", NAMES)
def test_all_convolutions_and_linear_layers_become_int8(name: str) -> None:
    layers = [m for m in blank(name).modules() if type(m) in (nn.Conv2d, nn.Linear)]
    assert RECIPES.get(name).int8_modules == len(layers)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_promises_makes_sense(name: str) -> None:
    recipe = RECIPES.get(name)
    assert recipe.backend in BACKENDS
    assert recipe.per_channel
    assert recipe.spare_bit != "none"
    assert recipe.thresholds.accuracy == 0.99
    assert 1 < recipe.thresholds.size_ratio < 4
    assert set(recipe.thresholds.speedup) <= set(INSTRUCTION_SETS)
    assert recipe.flow == "fx" or name in QUANTIZABLE


CHANGES: dict[str, object] = {
    "model": "other",
    "backend": "qnnpack",
    "fusion": (("conv1", "bn1"),),
    "int8_modules": 1,
    "thresholds": Thresholds(accuracy=0.5),
    "flow": "eager",
    "observer": "minmax",
    "per_channel": False,
    "spare_bit": "activations",
    "bias_correction": False,
    "calibration_images": 7,
    "keep_float": ("fc",),
    "fused_groups": 3,
    "probe": {"agreement": 0.5},
    "unsupported": {"qnnpack": "no kernel"},
}


@pytest.mark.parametrize("field", [field.name for field in fields(Recipe)])
def test_the_hash_changes_with_every_field(field: str) -> None:
    recipe = RECIPES.get("resnet18")
    changed = replace(recipe, **{field: CHANGES[field]})
    assert changed != recipe
    assert changed.hash != recipe.hash
    assert replace(changed, **{field: getattr(recipe, field)}).hash == recipe.hash


@pytest.mark.parametrize("field", [field.name for field in fields(Thresholds)])
def test_the_hash_changes_with_every_threshold(field: str) -> None:
    recipe = RECIPES.get("resnet18")
    value = {"avx2": 9.0} if field == "speedup" else 0.123
    thresholds = recipe.thresholds.replaced({field: value})
    assert replace(recipe, thresholds=thresholds).hash != recipe.hash


def test_a_completed_recipe_has_the_hash_of_the_declared_one() -> None:
    declared = RECIPES.get("resnet34")
    completed = CompletedRecipe(declared, (("conv1", "bn1"),), 1, ("fc",), "eager")
    assert completed.hash == declared.hash
    changed = replace(completed, recipe=replace(declared, observer="minmax"))
    assert changed.hash not in (declared.hash, completed.hash)


def test_a_completed_recipe_written_out_declares_everything() -> None:
    declared = replace(RECIPES.get("resnet34"), keep_float=("layer*.0",))
    completed = CompletedRecipe(declared, (("conv1", "bn1"),), 1, ("fc",), "eager")
    explicit = completed.written_out()
    assert (explicit.fusion, explicit.int8_modules) == (completed.groups, 1)
    assert (explicit.keep_float, explicit.flow, explicit.fused_groups) == (("fc",), "eager", None)
    assert explicit.hash != declared.hash


def test_hashes_tell_the_recipes_apart() -> None:
    hashes = {recipe.hash for recipe in RECIPES}
    assert len(hashes) == len(RECIPES.names())
    assert all(len(digits) == 12 and int(digits, 16) >= 0 for digits in hashes)
