"""Operators that torch.ao quantizes wrongly, and what is done about them."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_networks import ANY, decibels, quantized, random_images
from torch import Tensor, nn

from ptqbench.backends.torch_engines.torchscript import engine_set


@pytest.fixture(scope="module")
def images() -> Tensor:
    return random_images()


class Branches(nn.Module):
    """Two branches of very different range, concatenated; a LayerNorm that is a function."""

    def __init__(self, first: nn.Module | None = None) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.first = first or nn.Identity()
        self.wide.weight.data *= 8
        self.merge, self.fc = nn.Conv2d(16, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.merge(torch.cat([self.first(self.narrow(x)), self.wide(x)], dim=1))
        return self.fc(nn.functional.layer_norm(x, (8, 8, 8)).mean((2, 3)))


def branches(first: nn.Module | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Branches(first).eval()


@pytest.mark.parametrize("keep", [(), ("<cat>",)])
def test_functions_that_stay_in_float(images: Tensor, keep: tuple[str, ...]) -> None:
    model = branches()
    converted = quantized(model, images, fusion=(), keep_float=keep)
    assert isinstance(converted, torch.fx.GraphModule)
    called = {str(node.target) for node in converted.graph.nodes}
    assert not [target for target in called if "quantized.layer_norm" in target]
    with engine_set(ANY), torch.inference_mode():
        assert decibels(model(images), converted(images)) > 25


@pytest.mark.parametrize("first", [nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid()])
def test_a_fixed_range_is_not_forced_on_what_is_concatenated(
    images: Tensor, first: nn.Module
) -> None:
    model = branches(first)
    converted = quantized(model, images, fusion=())
    with engine_set(ANY), torch.inference_mode():
        assert decibels(model(images), converted(images)) > 20


def test_a_prelu_is_right(images: Tensor) -> None:
    """torch's int8 kernel multiplies positive values too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.Conv2d(16, 8, 3)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
        ).eval()
    converted = quantized(model, images, fusion=())
    with engine_set(ANY), torch.inference_mode():
        assert decibels(model(images), converted(images)) > 25
