"""The parity gate: files that execute as simulated, and kernels that do something else."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_artifacts import (
    CLEAN,
    SMALL,
    Built,
    build,
    judge,
    noise,
    scenes,
    shipped,
    small,
)
from helpers.tiny_networks import decibels
from torch import Tensor
from torch.ao.quantization.quantize_fx import convert_to_reference_fx

from ptqbench.backends.backend import SimulationError
from ptqbench.backends.torch_engines.script_simulation import ScriptSimulation
from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.gates import GateResult, Verdict
from ptqbench.measurement.parity import IMAGES, Parity, measure_parity
from ptqbench.quantization import fx
from ptqbench.quantization.completion import complete_recipe
from ptqbench.quantization.qconfig import set_weight_grids
from ptqbench.recipes import RECIPES
from ptqbench.recipes.toml_format import to_toml

pytestmark = pytest.mark.usefixtures("torch_settings")


def gate(built: Built, images: Tensor, executed: Tensor | None = None) -> GateResult:
    with torch.inference_mode():
        float32 = built.model(images)
        executed = built.artifact.load()(images) if executed is None else executed
        simulated = built.artifact.simulation()(images)
    return judge("parity", parity=Parity.of(float32, simulated, executed))


@pytest.mark.parametrize(("name", "backend", "flow"), CLEAN)
def test_passes_clean_models(name: str, backend: str, flow: str) -> None:
    result = gate(shipped(name, backend, flow), scenes())
    assert result.verdict is Verdict.PASS, result.detail
    assert result.criterion == "parity_db" and result.threshold == -3.0
    assert result.observed is not None and abs(result.observed) < 2


def test_a_simulation_is_the_reference_model_of_torch(tmp_path: Path) -> None:
    model, images = small(), noise()
    built = build(model, tmp_path / "a.pt")
    with engine_set("fbgemm"), torch.no_grad():
        completed = complete_recipe(SMALL, model, images[:1])
        prepared = fx.prepare(model, completed, images[:1], saturates=True)
        prepared(images)
        set_weight_grids(prepared, SMALL, built.backend.pairing)
        reference = convert_to_reference_fx(prepared)(images)
        simulated = built.artifact.simulation()(images)
        float32 = model(images)
    # What differs is the order of float32 sums, which decides a few ties.
    assert decibels(reference, simulated) > 50
    assert decibels(float32, simulated) < 30


def test_kernels_that_lose_bits_fail(tmp_path: Path) -> None:
    """Logits as of kernels that read activations in steps of a half."""
    built = build(small(), tmp_path / "a.pt")
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        executed = built.artifact.load()((images * 2).round() / 2)
    result = gate(built, images, executed)
    assert result.verdict is Verdict.FAIL
    assert "promised more than the device gives" in result.detail


def logits(*scales: float, images: int = 64, seed: int = 0) -> list[Tensor]:
    """float32 logits, and the same with noise of so many standard deviations."""
    generator = torch.Generator().manual_seed(seed)
    float32 = torch.randn(images, 10, generator=generator)
    return [
        float32,
        *(float32 + scale * torch.randn(images, 10, generator=generator) for scale in scales),
    ]


@pytest.mark.parametrize(
    ("executed", "verdict"),
    [(0.01, Verdict.PASS), (0.0141, Verdict.INCONCLUSIVE), (0.02, Verdict.FAIL)],
)
def test_three_decibels_are_what_execution_may_cost(executed: float, verdict: Verdict) -> None:
    result = judge("parity", parity=Parity.of(*logits(0.01, executed)))
    assert result.verdict is verdict
    # By hand: twice the standard deviation is four times the power, 6 dB.
    assert result.observed == pytest.approx(-20 * math.log10(executed / 0.01), abs=0.5)


def test_equal_logits_pass_whatever_the_grids_cost() -> None:
    float32, simulated = logits(0.5)
    result = judge("parity", parity=Parity.of(float32, simulated, simulated))
    assert (result.verdict, result.observed) == (Verdict.PASS, 0.0)
    result = judge("parity", parity=Parity.of(float32, float32, float32 + 1e-6))
    assert (result.verdict, result.observed) == (Verdict.PASS, 0.0)


def test_logits_that_are_no_numbers_fail() -> None:
    float32, simulated, executed = logits(0.01, 0.01)
    executed[3, 4] = math.nan
    result = judge("parity", parity=Parity.of(float32, simulated, executed))
    assert result.verdict is Verdict.FAIL and result.observed == -math.inf


class Numbers:
    """Images that are the logits themselves."""

    name, labelled, classes = "numbers", False, ()

    def __init__(self, count: int) -> None:
        self.count = self.limit = count

    def batches(self, start: int, stop: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        images = torch.randn(self.count, 10, generator=torch.Generator().manual_seed(0))
        for first in range(start, stop, size):
            part = images[first : min(first + size, stop)]
            yield part, torch.zeros(len(part))


@pytest.mark.parametrize(
    ("count", "certain_from", "images"),
    [(500, 1, 16), (500, 60, 64), (500, 999, 192), (40, 64, 40)],
)
def test_more_images_are_taken_while_the_verdict_is_open(
    count: int, certain_from: int, images: int
) -> None:
    parity = measure_parity(
        lambda x: x,
        lambda x: x + 0.1,
        lambda x: x - 0.1,
        Numbers(count),
        stop_when=lambda parity: parity.images >= certain_from,
    )
    assert parity.images == images and images <= IMAGES[-1]


class Undefined(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        q = torch.quantize_per_tensor(x, 0.1, 128, torch.quint8)
        return torch.ops.quantized.celu(q, 0.1, 0, 1.0).dequantize()


class Branching(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return x
        return -x


def test_what_has_no_definition_is_named() -> None:
    with pytest.raises(SimulationError, match="quantized::celu"):
        ScriptSimulation(torch.jit.trace(Undefined().eval(), noise()), "x86")(noise())
    with pytest.raises(SimulationError, match="prim::If"):
        ScriptSimulation(torch.jit.script(Branching().eval()), "x86")(noise())


@pytest.mark.slow
def test_saturation_is_caught_by_what_it_costs(tmp_path: Path) -> None:
    """MobileNetV2 in full-range weights, on kernels that add in 16 bits."""
    recipe = tmp_path / "full.toml"
    recipe.write_text(to_toml(replace(RECIPES.get("mobilenet_v2"), spare_bit="none")))
    smaller = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-m", "ptqbench", "run", "mobilenet_v2", "--backend", "onednn"]
    command += ["--recipe", str(recipe), "--limit", "50", "--threads", "1", "--json", "-"]
    done = subprocess.run(
        command, env={**os.environ, **smaller}, capture_output=True, text=True, check=False
    )
    (case,) = json.loads(done.stdout)["cases"]
    gates = {gate["name"]: gate for gate in case["gates"]}
    assert gates["saturation"]["verdict"] == "fail"
    assert gates["parity"]["verdict"] == "fail" and gates["parity"]["observed"] < -4
