"""Networks, really quantized, for the tests of the gates that look inside an artifact."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.graph import Graph
from ptqbench.backends.torch_engines.torchscript import (
    engine_set,
    save_script,
    trace_and_freeze,
)
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.data.fixture.scenes import render
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.gates import GATES, Evidence, GateResult
from ptqbench.measurement.layer_matching import MatchedGraph, match_graphs
from ptqbench.models.catalog import MODELS
from ptqbench.quantization import eager, fx
from ptqbench.quantization.build_record import BuildRecord, inspect_build
from ptqbench.quantization.completion import complete_recipe
from ptqbench.quantization.qconfig import set_weight_grids
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.thresholds import Thresholds
from ptqbench.weights.load import build_model, load_weights

GROUPS = (
    ("stem.0", "stem.1", "stem.2"),
    ("conv1", "bn1", "relu1"),
    ("conv2", "bn2"),
    ("depthwise", "bn3"),
)
LAYERS = ("stem.0", "conv1", "conv2", "depthwise", "fc")
SMALL = Recipe(
    model="small", backend="fbgemm", fusion=GROUPS, int8_modules=5, thresholds=Thresholds()
)
CLEAN = (("resnet18", "onednn", "fx"), ("mobilenet_v2", "x86", "eager"))
CLEAN += (("squeezenet1_1", "qnnpack", "fx"),)
"""Three architectures on three engines in both flows."""


class Small(nn.Module):
    """A stem, a residual block, a depthwise convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.conv1, self.bn1 = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False)
        self.bn3 = nn.BatchNorm2d(16)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.fc = nn.Linear(16, 10)
        self.quant, self.dequant = nn.Identity(), nn.Identity()

    def sum(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.quant(x))
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        x = self.relu2(self.sum(x, y))
        x = self.bn3(self.depthwise(x))
        return self.dequant(self.fc(x.mean((2, 3))))


class SmallEager(Small):
    """The same with stubs, and with an addition that no image reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.add, self.unused = FloatFunctional(), FloatFunctional()

    def sum(self, left: Tensor, right: Tensor) -> Tensor:
        return self.add.add(left, right)


@functools.cache
def noise() -> Tensor:
    return torch.randn((8, 3, 16, 16), generator=torch.Generator().manual_seed(1))


@functools.cache
def scenes() -> Tensor:
    """Eight calibration images of the fixture set, normalised, 64×64."""
    pixels = np.stack([np.asarray(render(0, 1, i, i % 16)) for i in range(8)])
    return Preprocessing(64, 64).normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def settle(model: nn.Module, images: Tensor) -> nn.Module:
    """Give BatchNorms the statistics of the images."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model(images)
    return model.eval()


def small(kind: type[Small] = Small, seed: int = 0) -> Small:
    torch.manual_seed(seed)
    model = settle(kind(), noise())
    assert isinstance(model, Small)
    return model


@dataclass(frozen=True)
class Built:
    """A float model, its artifact and what was seen while it was built."""

    model: nn.Module
    artifact: Artifact
    record: BuildRecord
    images: Tensor

    @functools.cached_property
    def reference(self) -> Graph:
        return read_float_graph(self.model, self.images[:1])

    @functools.cached_property
    def backend(self) -> Backend:
        return BACKENDS.get(self.artifact.info.backend)

    @functools.cached_property
    def matched(self) -> MatchedGraph:
        return match_graphs(self.backend.layers(self.artifact.path), self.reference)


def build(
    model: nn.Module,
    path: Path,
    recipe: Recipe = SMALL,
    images: Tensor | None = None,
    *,
    backend: str | None = None,
    saturates: bool = True,
    spoil: Callable[[nn.Module], object] = lambda prepared: None,
    calibrate: bool = True,
    convert: bool = True,
) -> Built:
    """Quantize step by step, with a place for a defect between the steps."""
    images = noise() if images is None else images
    runtime = BACKENDS.get(backend or recipe.backend)
    engine, pairing = runtime.engine, runtime.pairing if saturates else None
    flow = fx if recipe.flow == "fx" else eager
    with engine_set(engine), torch.no_grad():
        completed = complete_recipe(recipe, model, images[:1])
        prepared = flow.prepare(model, completed, images[:1], saturates=saturates)
        spoil(prepared)
        if calibrate:
            prepared(images)
        record = inspect_build(model, prepared, recipe.fusion, images)
        set_weight_grids(prepared, recipe, pairing)
        converted = flow.convert(prepared) if convert else prepared
        info = ArtifactInfo("int8", backend or recipe.backend, engine, recipe.model)
        artifact = save_script(trace_and_freeze(converted, images[:1]), path, info)
    return Built(model, artifact, record, images)


@functools.cache
def shipped(name: str, backend: str, flow: str) -> Built:
    """A shipped architecture, quantized by its recipe; on its fixture weights if there."""
    spec = MODELS.get(name)
    try:
        model = build_model(spec, load_weights(spec))
    except UserError:
        torch.manual_seed(0)
        model = settle(spec.factory(16), scenes())
    recipe = replace(RECIPES.get(name), flow=flow)
    path = Path(_folder().name) / f"{name}-{backend}-{flow}.pt"
    return build(model, path, recipe, scenes(), backend=backend)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that lives as long as the process, because the cache refers to it."""
    return tempfile.TemporaryDirectory()


def judge(name: str, **evidence: object) -> GateResult:
    """Ask one gate about one measurement."""
    return GATES.get(name)(Evidence(Thresholds(), "avx2", {**evidence}))  # type: ignore[arg-type]
