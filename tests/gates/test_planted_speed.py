"""The gate on speed: sound artifacts pass, planted defects are caught, on real time.

The thresholds leave room for a noisy machine: nothing here is near them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.gates import Evidence, GateResult, Verdict, evaluate
from ptqbench.measurement.speed import measure_speed
from ptqbench.settings.thresholds import Thresholds

if TYPE_CHECKING:
    from conftest import Workshop

LEAST = 1.1
"""Between a file in which nothing is int8 (1.0) and a sound one on a CPU that gains least by
int8, one that executes AVX2 in 128-bit halves (1.26)."""
REQUIRED = Thresholds(speedup={"avx2": LEAST})
EXAMPLE = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))

pytestmark = [
    pytest.mark.usefixtures("torch_settings"),
    pytest.mark.slow,
    pytest.mark.timing,
    pytest.mark.skipif(
        BACKENDS.get("x86").availability() is not None, reason="needs the kernels for x86"
    ),
]


def judged(float32: Model, int8: Model) -> GateResult:
    speed = measure_speed(float32, int8, EXAMPLE, threads=1, threshold=LEAST)
    (result,) = evaluate(Evidence(REQUIRED, "avx2", {"speed": speed}), ("speedup",))
    return result


def fastest(workshop: Workshop, name: str) -> Model:
    """The fastest float32 TorchScript, as in a run."""
    example = workshop.evaluation[0][:1]
    backend = BACKENDS.get("x86")
    path = workshop.folder / f"{name}-planted.float32.pt"
    return backend.float_lowerings(backend.build_float(workshop.model(name), name, example, path))[
        "optimized"
    ]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_sound_artifacts_pass(workshop: Workshop, name: str) -> None:
    result = judged(fastest(workshop, name), workshop.built(name, "x86").artifact.load())
    assert result.verdict is Verdict.PASS, result.detail


def test_catches_a_file_in_which_nothing_is_int8(workshop: Workshop) -> None:
    result = judged(fastest(workshop, "squeezenet1_1"), fastest(workshop, "squeezenet1_1"))
    assert result.verdict is Verdict.FAIL, result.detail
    assert result.observed == pytest.approx(1.0, abs=0.15)


def test_catches_an_engine_that_is_slow_on_this_cpu(workshop: Workshop) -> None:
    int8 = workshop.built("shufflenet_v2_x1_0", "fbgemm").artifact.load()
    result = judged(fastest(workshop, "shufflenet_v2_x1_0"), int8)
    assert result.verdict is Verdict.FAIL, result.detail
    assert result.observed is not None and result.observed < 1
    assert "Compare the other backends" in result.detail


def test_catches_work_that_is_done_again(workshop: Workshop) -> None:
    int8 = workshop.built("squeezenet1_1", "x86").artifact.load()

    def again(images: torch.Tensor) -> torch.Tensor:
        for _ in range(16):  # with VNNI it is a dozen times as fast as float32
            logits = int8(images)
        return logits

    result = judged(fastest(workshop, "squeezenet1_1"), again)
    assert result.verdict is Verdict.FAIL, result.detail
