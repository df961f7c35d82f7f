"""Depthwise convolutions that fbgemm has no fast kernel for are named, and really are slow."""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import ptqbench
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.graph import Graph, IntegerWeights, Operator, Role
from ptqbench.backends.torch_engines.slow_kernels import slow_layers
from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.core.phases import Phases
from ptqbench.core.progress import silent
from ptqbench.evaluation import case_measurements as case_module
from ptqbench.evaluation.case import CaseEvaluation
from ptqbench.evaluation.case_measurements import measure_speedup
from ptqbench.evaluation.float_rivals import Opponent
from ptqbench.evaluation.subject import LatencyInput
from ptqbench.measurement.intervals import Estimate
from ptqbench.measurement.speed import Speed
from ptqbench.settings.thresholds import Thresholds

GEOMETRIES = {
    "usual": ((64, 3, 1, 1, 1, 64), ""),
    "stride 2": ((64, 3, 2, 1, 1, 64), ""),
    "five by five": ((64, 5, 1, 2, 1, 64), ""),
    "two outputs of a channel": ((64, 3, 1, 1, 1, 128), ""),
    "padded outside": ((64, 3, 1, 0, 1, 64), "padding that is not half the kernel"),
    "dilated": ((64, 3, 1, 2, 2, 64), "padding that is not half the kernel"),
    "dilated, padding 1": ((64, 3, 1, 1, 2, 64), "dilation"),
    "60 channels": ((60, 3, 1, 1, 1, 60), "channels that are not a multiple of 8"),
    "four outputs of a channel": ((64, 3, 1, 1, 1, 256), "unusual"),
}
"""Channels, kernel, stride, padding, dilation, outputs; and why it is slow, if it is."""


def layer(channels: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int):
    weights = IntegerWeights(
        integers=torch.ones(outputs, 1, kernel, kernel, dtype=torch.int8),
        scales=torch.ones(outputs, dtype=torch.float64),
        zero_points=torch.zeros(outputs, dtype=torch.int64),
        per_channel=True,
        bias=None,
        stride=(stride, stride),
        padding=(padding, padding),
        dilation=(dilation, dilation),
        groups=channels,
    )
    return Operator("quantized::conv2d", Role.INT8_LAYER, "y", ("x",), integers=weights)


@pytest.mark.parametrize(("geometry", "reason"), GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("engine", ["fbgemm", "x86"])
def test_a_slow_layer_is_named_with_its_reason(geometry, reason: str, engine: str) -> None:
    text = slow_layers(Graph((layer(*geometry),)), engine)
    assert bool(text) == bool(reason)
    assert reason in text
    assert slow_layers(Graph((layer(*geometry),)), "onednn") == ""


def test_the_sentence_counts_layers_by_reason() -> None:
    kinds = ("padded outside", "60 channels", "usual", "padded outside")
    graph = Graph(tuple(layer(*GEOMETRIES[kind][0]) for kind in kinds))
    assert BACKENDS.get("fbgemm").slow_layers(graph) == (
        "3 depthwise convolutions have no fast kernel in fbgemm (2 with padding that is not half "
        "the kernel; 1 with channels that are not a multiple of 8): use onednn."
    )


class PaddedInFront(nn.Sequential):
    """A depthwise convolution without padding, as networks have it that pad in front."""

    def __init__(self) -> None:
        depthwise = nn.Conv2d(16, 16, 3, groups=16)
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(nn.Conv2d(3, 16, 3), nn.ReLU(), depthwise, *pool, nn.Linear(16, 4))


@pytest.mark.skipif(BACKENDS.get("fbgemm").availability() is not None, reason="no fbgemm")
@pytest.mark.parametrize(
    ("low", "cause"), [(1.6, ""), (1.4, "1 depthwise convolution has no fast kernel in fbgemm")]
)
def test_it_is_the_cause_where_int8_is_too_slow(tmp_path, monkeypatch, low, cause) -> None:
    torch.manual_seed(0)
    calibration = [torch.randn(8, 3, 16, 16)]
    path = tmp_path / "int8.pt"
    reference = SimpleNamespace(fastest=None, times_ms={"eager": 1.0})
    case = SimpleNamespace(
        reference=reference,
        opponent=Opponent(reference, "torch"),
        phases=Phases(),
        artifact=ptqbench.quantize(PaddedInFront(), calibration, backend="fbgemm", path=path),
        backend=BACKENDS.get("fbgemm"),
        subject=SimpleNamespace(
            latency=LatencyInput((1, 3, 16, 16), 1),
            thresholds=Thresholds(speedup={instruction_set(): 1.5}),
        ),
        progress=silent,
        step=nullcontext,
        _tolerant=False,
    )
    case.slow_layers = partial(CaseEvaluation.slow_layers, case)
    ratio, noise = Estimate(2.0, low, 2.4, 20), Estimate(1.0, 0.9, 1.1, 20)
    speed = Speed(ratio, 2.0, 1.0, noise, 20, 1, (1, 3, 16, 16))
    monkeypatch.setattr(case_module, "measure_speed", lambda *_, **__: speed)
    text = measure_speedup(case).cause
    assert text.startswith(cause)
    assert bool(text) == bool(cause)


def milliseconds(geometry: tuple[int, ...]) -> float:
    """The shortest of five calls of a layer on fbgemm, in ms of this process's time."""
    channels, kernel, stride, padding, dilation, outputs = geometry
    with engine_set("fbgemm"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scales, zeros = torch.full((outputs,), 0.05), torch.zeros(outputs, dtype=torch.int64)
        weight = torch.randn(outputs, 1, kernel, kernel)
        integers = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        two = [[each, each] for each in (stride, padding, dilation)]
        packed = torch.ops.quantized.conv2d_prepack(integers, torch.zeros(outputs), *two, channels)
        image: Tensor = torch.randn(1, channels, 28, 28).to(memory_format=torch.channels_last)
        values = torch.quantize_per_tensor(image, 0.05, 128, torch.quint8)
        times = []
        for _ in range(5):
            started = time.process_time()
            torch.ops.quantized.conv2d(values, packed, 0.1, 128)
            times.append(time.process_time() - started)
    return min(times) * 1e3


@pytest.mark.timing
@pytest.mark.skipif(BACKENDS.get("fbgemm").availability() is not None, reason="no fbgemm")
def test_what_is_named_is_slow_and_the_rest_is_not() -> None:
    usual = milliseconds(GEOMETRIES["usual"][0])
    ratios = {kind: milliseconds(each) / usual for kind, (each, _) in GEOMETRIES.items()}
    assert {kind for kind, ratio in ratios.items() if ratio > 12} == {
        kind for kind, (_, reason) in GEOMETRIES.items() if reason
    }, ratios
