"""The int8 operators without weights, against torch's float32 ones, on every engine and layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.backends.torch_engines.torchscript import engine_set, trace
from ptqbench.quantization.torch_warnings import known_deprecations_ignored

Q = torch.ops.quantized
GRID = (0.05, 120)
"""Scale and zero point of the operands."""
OUT = (0.07, 110)
STEPS = 1
"""Kernels round products and averages in another order."""
Kernel = Callable[[Tensor, Tensor], Tensor]
KERNELS: dict[str, tuple[Kernel, Kernel]] = {
    "add": (lambda x, y: Q.add(x, y, *OUT), torch.add),
    "add_relu": (lambda x, y: Q.add_relu(x, y, *OUT), lambda x, y: F.relu(x + y)),
    "mul": (lambda x, y: Q.mul(x, y, *OUT), torch.mul),
    "mul_relu": (lambda x, y: Q.mul_relu(x, y, *OUT), lambda x, y: F.relu(x * y)),
    "add a number": (lambda x, y: Q.add(x, 3.0), lambda x, y: x + 3),
    "mul by a number": (lambda x, y: Q.mul(x, -0.5), lambda x, y: x * -0.5),
    "hardswish": (lambda x, y: Q.hardswish(x, *OUT), lambda x, y: F.hardswish(x)),
    "leaky_relu": (
        lambda x, y: Q.leaky_relu(x, 0.1, False, *OUT),
        lambda x, y: F.leaky_relu(x, 0.1),
    ),
    "elu": (lambda x, y: Q.elu(x, *OUT, 1.0), lambda x, y: F.elu(x)),
    "quantized::relu6": (lambda x, y: Q.relu6(x), lambda x, y: F.relu6(x)),
    "matmul": (lambda x, y: Q.matmul(x, y, *OUT), torch.matmul),
    "softmax": (lambda x, y: Q.softmax(x, 1, 1 / 256, 0), lambda x, y: x.softmax(1)),
}  # fmt: skip
SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "clamp": lambda x: torch.clamp(x, -1.0, 1.0),
    "clamp, method": lambda x: x.clamp(0, 6),
    "hardtanh": lambda x: F.hardtanh(x, -1.0, 1.0),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardsigmoid": F.hardsigmoid,
    "mean": lambda x: x.mean((2, 3)),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "cat": lambda x: torch.cat([x, x], 1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "flatten": lambda x: x.flatten(1),
}
"""Functions that int8 and float32 have in common."""
ENGINES = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]


class Call(nn.Module):
    """Quantize two maps, call an int8 operator, and give its output in float32."""

    def __init__(self, kernel: Kernel, order: torch.memory_format) -> None:
        super().__init__()
        self.kernel, self.order = kernel, order

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        quantized = (
            torch.quantize_per_tensor(
                each.contiguous(memory_format=self.order), *GRID, torch.quint8
            )
            for each in (x, y)
        )
        output = self.kernel(*quantized)
        self.grid = output.q_scale(), output.q_zero_point()
        return output.dequantize()


def quantize(values: Tensor, grid: tuple[float, int]) -> Tensor:
    with known_deprecations_ignored():
        return torch.quantize_per_tensor(values.contiguous(), *grid, torch.quint8).dequantize()


def largest_error(
    engine: str, kernel: Kernel, exact: Kernel, order: Any, size: tuple[int, ...] = (2, 8, 6, 6)
) -> float:
    """Distance of an int8 operator, traced for an engine, from exact arithmetic, in steps."""
    generator = torch.Generator().manual_seed(0)
    x, y = (2 * torch.randn(size, generator=generator) for _ in range(2))
    call = Call(kernel, order)
    with engine_set(engine), known_deprecations_ignored(), torch.inference_mode():
        traced: Any = trace(call, (x, y))  # type: ignore[arg-type]
        output = traced(x, y)
    expected = quantize(exact(quantize(x, GRID), quantize(y, GRID)), call.grid)
    return float((output - expected).abs().max()) / call.grid[0]


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_int8_operators_are_right(engine: str, order: torch.memory_format) -> None:
    pairs = KERNELS | {
        name: (lambda x, y, f=function: f(x), lambda x, y, f=function: f(x))
        for name, function in SAME.items()
    }
    errors = {name: largest_error(engine, *pair, order) for name, pair in pairs.items()}
    assert {name: error for name, error in errors.items() if error > STEPS + 0.01} == {}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "mean",
    [
        lambda x: x.mean((2, 3)),
        lambda x: x.mean([-1, -2], keepdim=False),
        lambda x: torch.mean(x, dim=(2, 3), keepdim=True),
        lambda x: x.mean(1),
    ],
)
def test_the_mean_of_a_single_pixel(engine: str, mean: Callable[[Tensor], Tensor]) -> None:
    """Torch's kernel refuses the strides that a convolution gives to a map of one pixel."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return mean(Q.add(F.max_pool2d(x, 2), F.max_pool2d(y, 2), *OUT))

    def exact(x: Tensor, y: Tensor) -> Tensor:
        return mean(quantize(F.max_pool2d(x, 2) + F.max_pool2d(y, 2), OUT))

    for side in (2, 6):
        size = (1, 8, side, side)
        assert largest_error(engine, kernel, exact, torch.channels_last, size) <= STEPS + 0.01
