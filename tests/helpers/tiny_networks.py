"""A network small enough to be looked at, and what is made of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.core.phases import Phases
from ptqbench.quantization import fx
from ptqbench.quantization.calibration import calibrate
from ptqbench.quantization.completion import complete_recipe
from ptqbench.quantization.qconfig import set_weight_grids
from ptqbench.recipes import Recipe
from ptqbench.settings.thresholds import Thresholds

ANY = next(backend.name for backend in TORCH_ENGINES if backend.availability() is None)


def decibels(signal: Tensor, other: Tensor) -> float:
    noise = (signal - other).double().square().sum()
    return 10 * math.log10(float(signal.double().square().sum() / noise)) if noise else math.inf


# A network small enough to be looked at: ReLU6, a residual addition, a depthwise convolution.


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU6()
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16)
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(x + self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


TINY = Recipe(
    model="tiny",
    backend=ANY,
    fusion=(("conv1", "bn1", "relu1"), ("conv2", "bn2")),
    int8_modules=3,
    thresholds=Thresholds(),
    observer="minmax",
)


def random_images() -> Tensor:
    return torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def quantized(
    model: nn.Module, images: Tensor, *, saturates: bool = True, **changes: object
) -> nn.Module:
    recipe = Recipe(**{**vars(TINY), **changes})
    with engine_set(ANY):
        prepared = fx.prepare(
            model, complete_recipe(recipe, model, images[:1]), images[:1], saturates=saturates
        )
        calibrate(prepared, images.split(16), Phases())
        set_weight_grids(prepared, recipe, "taps" if saturates else None)
        return fx.convert(prepared)
