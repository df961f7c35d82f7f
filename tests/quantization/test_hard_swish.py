"""Hard-swish and hard-sigmoid however they are written, and what int8 makes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.tiny_networks import TINY, decibels, random_images
from torch import Tensor, nn
from torch.ao.quantization.quantize_fx import convert_to_reference_fx
from torch.nn import functional as F

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.backends.torch_engines.torchscript import engine_set, trace_and_freeze
from ptqbench.core.phases import Phases
from ptqbench.quantization import fx
from ptqbench.quantization.calibration import calibrate
from ptqbench.quantization.canonical import canonical_model
from ptqbench.quantization.completion import complete_recipe
from ptqbench.quantization.qconfig import set_weight_grids
from ptqbench.quantization.torch_warnings import known_deprecations_ignored
from ptqbench.recipes import Recipe

Function = Callable[[Tensor], Tensor]
ENGINES = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]
SWISHES: dict[str, Function] = {
    "relu6": lambda x: x * F.relu6(x + 3) / 6,
    "relu6 in place": lambda x: x * F.relu6(x + 3.0, inplace=True) / 6.0,
    "relu6 first": lambda x: F.relu6(x + 3) / 6 * x,
    "factor": lambda x: x * (F.relu6(3 + x) * (1 / 6)),
    "rounded factor": lambda x: 0.16666667 * x * F.relu6(x + 3),
    "clamp": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "hardtanh": lambda x: x * F.hardtanh(x + 3, 0.0, 6.0) / 6,
    "clamp to 1": lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1),
    "clamp of a sum to 1": lambda x: x * torch.clamp((x + 3) / 6, 0, 1),
    "hardsigmoid": lambda x: x * F.hardsigmoid(x),
    "hardsigmoid, module": lambda x: nn.Hardsigmoid()(x) * x,
    "relu6, module": lambda x: x * nn.ReLU6()(x + 3) / 6,
    "hardswish": F.hardswish,
}
SIGMOIDS: dict[str, Function] = {
    "relu6": lambda x: F.relu6(x + 3) / 6,
    "clamp": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "squeeze-excitation": lambda x: x * (F.relu6(x.mean((2, 3), keepdim=True) + 3) / 6),
}
OTHERS: dict[str, Function] = {
    "other shift": lambda x: x * F.relu6(x + 2) / 6,
    "other factor": lambda x: x * F.relu6(x + 3) / 5,
    "without the factor": lambda x: x * F.relu6(x + 3),
    "slope of Keras": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "half": lambda x: (x / 6 + 0.5).clamp(0, 0.5),
    "descending": lambda x: F.relu6(3 - x) / 6,
    "ReLU6": F.relu6,
    "two values": lambda x: x * torch.add(x, x, alpha=2) / 6,
}


class Net(nn.Module):
    """A function of a map between two convolutions."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.conv1, self.conv2, self.fc = (
            nn.Conv2d(3, 16, 3),
            nn.Conv2d(16, 16, 3),
            nn.Linear(16, 4),
        )
        self.conv1.weight.data *= 6

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.function(self.conv1(x))).mean((2, 3)))


def network(function: Function) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(function).eval()


def functions(model: nn.Module) -> list[Any]:
    assert isinstance(model, torch.fx.GraphModule)
    return [node.target for node in model.graph.nodes if node.op == "call_function"]


class Each(nn.Module):
    """Several functions of one map, added up: one capture for all."""

    def __init__(self, each: dict[str, Function]) -> None:
        super().__init__()
        self.each = each

    def forward(self, x: Tensor) -> Tensor:
        # A factor keeps apart what begins alike.
        maps = [function(x * (2 + index)) for index, function in enumerate(self.each.values())]
        return torch.stack(maps).sum((0, 3, 4))


def called(each: dict[str, Function]) -> list[Any]:
    return functions(canonical_model(Each(each).eval(), random_images()[:4]))


def test_a_hard_swish_is_called_by_its_name() -> None:
    assert called(SWISHES).count(F.hardswish) == len(SWISHES)
    assert not {F.relu6, F.hardsigmoid, F.hardtanh, torch.clamp} & set(called(SWISHES))


def test_a_hard_sigmoid_is_called_by_its_name() -> None:
    assert called(SIGMOIDS).count(F.hardsigmoid) == len(SIGMOIDS)
    assert F.relu6 not in called(SIGMOIDS)


def test_what_is_similar_stays() -> None:
    assert not {F.hardswish, F.hardsigmoid} & set(called(OTHERS))


def test_a_value_that_something_else_reads_stays_too() -> None:
    def function(x: Tensor) -> Tensor:
        gate = F.relu6(x + 3)
        return x * gate / 6 + gate

    assert {F.hardswish, F.relu6} <= set(
        functions(canonical_model(network(function), random_images()))
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_int8_is_what_exact_arithmetic_gives(engine: str) -> None:
    """QNNPACK's kernel for clamping mixes up the values of channels-last maps."""

    def function(x: Tensor) -> Tensor:
        x = x + torch.clamp(x * F.relu6(x + 3) / 6, -1.0, 2.0)
        return F.relu6(x)

    images, backend = random_images(), BACKENDS.get(engine)
    model = network(function)
    recipe = Recipe(**{**vars(TINY), "backend": engine, "fusion": ()})
    with engine_set(engine), torch.no_grad(), known_deprecations_ignored():
        canonical = canonical_model(model, images)
        completed = complete_recipe(recipe, canonical, images[:1], original=model)
        prepared = fx.prepare(canonical, completed, images[:1], saturates=backend.saturates())
        calibrate(prepared, images.split(16), Phases())
        set_weight_grids(prepared, recipe, backend.pairing if backend.saturates() else None)
        exact = convert_to_reference_fx(copy.deepcopy(prepared))(images)
        int8 = trace_and_freeze(fx.convert(prepared), images[:1])(images)
    assert decibels(exact, int8) > 35
    assert decibels(model(images), int8) > 25
