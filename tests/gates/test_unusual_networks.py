"""A file that computes what its network does passes the gates that look inside, however the
network is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.disguised_layers import CHANNELS, MIDDLES, Body, conv, network
from helpers.small_artifacts import judge, settle
from helpers.tiny_networks import decibels
from torch import Tensor, nn
from torch.nn import functional as F

from ptqbench.backends.backend import SimulationError
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.errors import UserError
from ptqbench.evaluation.int8_artifact import promise_of
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.conversion import measure_conversion
from ptqbench.measurement.fusion import measure_fusion
from ptqbench.measurement.layer_matching import match_graphs
from ptqbench.measurement.parity import Parity
from ptqbench.measurement.saturation import measure_saturation
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.quantization.canonical import canonical_model
from ptqbench.quantization.completion import complete_recipe
from ptqbench.recipes import Recipe
from ptqbench.settings.thresholds import Thresholds

AVAILABLE = [backend.name for backend in BACKENDS if backend.availability() is None]
RECIPE = Recipe("unusual", AVAILABLE[0], None, None, Thresholds(), observer="minmax")
LIMITS = {
    ("shared by levels", "executorch"): "a .pte file has no module paths: calls of one layer in "
    "branches, which ExecuTorch orders in its own way, are taken for each other",
}
"""What the gates cannot tell, by network and backend (docs/runtimes.md)."""
REFUSED = {("Conv1d", "executorch"): "is one-dimensional"}
"""What a backend refuses to build."""
SIMULATION_LIMITS = {
    "executorch": (
        *("fixed filter", "replicate", "circular", "products with matrices"),
        *("write into a slice", "transposed"),
    )
}
"""Networks whose files a backend cannot compute without its kernels: parity is unverified."""
LEAST_DB = 12.0
"""Of random networks of a few layers, in 7-bit weights; a file that computes something else has
less than 3 dB."""

pytestmark = pytest.mark.usefixtures("torch_settings")


class Residual(nn.Module):
    """A shortcut around two convolutions; the last BatchNorm may multiply by zero."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(bias=False), nn.BatchNorm2d(CHANNELS)
        self.conv2, self.bn2 = conv(bias=False), nn.BatchNorm2d(CHANNELS)
        nn.init.constant_(self.bn2.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class Tied(nn.Module):
    """Two layers that share one parameter, with a BatchNorm each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(bias=False), conv(bias=False)
        self.conv2.weight = self.conv1.weight
        self.bn1, self.bn2 = nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


class ChannelAttention(nn.Module):
    """A one-dimensional convolution over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
        return x * self.conv(y).transpose(-1, -2).unsqueeze(-1).sigmoid()


class SharedByLevels(nn.Module):
    """One convolution for two levels, each with a BatchNorm of its own and an end of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)])
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        fine = self.act(self.norms[0](self.conv(x)))
        coarse = self.norms[1](self.conv(F.avg_pool2d(x, 2)))
        return fine + F.interpolate(coarse, scale_factor=2)


class SharedWithNorm(nn.Module):
    """A convolution and its BatchNorm that are called twice, once with an activation behind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = conv(bias=False), nn.BatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.conv(x)))
        return x + self.bn(self.conv(y)) + self.conv(y)


UNUSUAL: dict[str, Callable[[], nn.Module]] = {
    "zero branch": lambda: Residual(0.0),
    "tied weights": Tied,
    "Conv1d": ChannelAttention,
    "shared by levels": SharedByLevels,
    "shared with its norm": SharedWithNorm,
    "activation before BatchNorm": lambda: nn.Sequential(
        conv(), nn.ReLU(), nn.BatchNorm2d(CHANNELS)
    ),
    "transposed": lambda: nn.Sequential(
        nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2), nn.BatchNorm2d(CHANNELS), nn.ReLU()
    ),
}
NETWORKS = [*MIDDLES, "flattening", *UNUSUAL]


def unusual(name: str) -> nn.Module:
    if name not in UNUSUAL:
        return network(name)
    torch.manual_seed(0)
    return settle(Body(UNUSUAL[name]()), images())


def images() -> Tensor:
    return torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_right_file_passes_what_looks_inside(name: str, backend: str, tmp_path: Path) -> None:
    if reason := LIMITS.get((name, backend)):
        pytest.skip(reason)
    model, target = unusual(name), BACKENDS.get(backend)
    canonical = canonical_model(model, images()[:4])
    recipe = complete_recipe(
        replace(RECIPE, backend=backend), canonical, images()[:1], original=model
    )
    path = tmp_path / f"int8{target.suffix}"
    if reason := REFUSED.get((name, backend)):
        with pytest.raises(UserError, match=reason):
            target.build(canonical, recipe, [images()], path)
        return
    artifact = target.build(canonical, recipe, [images()], path)
    assert artifact.info.build is not None
    record = BuildRecord.from_dict(artifact.info.build)
    reference = read_float_graph(canonical, images()[:1])
    matched = match_graphs(target.layers(artifact.path), reference)
    promise = promise_of(recipe)
    evidence = {
        "fusion": measure_fusion(matched, record, keeps=promise.keeps),
        "conversion": measure_conversion(matched, promise, record),
        "saturation": measure_saturation(artifact.path, target, reference, images()[:2]),
    }
    for gate, measurement in evidence.items():
        result = judge(gate, **{gate: measurement})
        assert result.verdict is Verdict.PASS, f"{gate}: {result.detail}"
    with torch.inference_mode():
        original, executed = model(images()), artifact.load()(images())
    sqnr = decibels(original, executed)
    assert math.isfinite(sqnr) and sqnr > LEAST_DB
    if name in SIMULATION_LIMITS.get(backend, ()):
        with pytest.raises(SimulationError):
            artifact.simulation()
        return
    with torch.inference_mode():
        simulated = artifact.simulation()(images())
    parity = judge("parity", parity=Parity.of(original, simulated, executed))
    assert parity.verdict is not Verdict.FAIL, parity.detail
