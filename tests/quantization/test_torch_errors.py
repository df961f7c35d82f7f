"""Errors of torch in the steps of quantization: named by step and module, never a traceback."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub

from ptqbench import UserError, quantize
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.data.random_images import RandomImages
from ptqbench.evaluation import case_measurements as case_module
from ptqbench.evaluation.case import CaseEvaluation
from ptqbench.evaluation.subject import LatencyInput
from ptqbench.quantization import fx
from ptqbench.settings.thresholds import Thresholds

BACKEND = next((b.name for b in TORCH_ENGINES if b.availability() is None), "onednn")
ENGINE = BACKENDS.get(BACKEND).engine
NONE = Thresholds()
IMAGES = [torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))]

pytestmark = pytest.mark.usefixtures("torch_settings")


class Net(nn.Module):
    """Two convolutions with BatchNorm, pooling and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Untraceable(Net):
    """Written for eager mode, with a part that torch.jit may not see."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.pool = Pool()

    def forward(self, x: Tensor) -> Tensor:
        x = self.dequant(self.body(self.stem(self.quant(x))))
        return self.dequant(self.head(self.quant(self.pool(x))))


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise ValueError("not while tracing")
        return x.mean((2, 3))


def net(kind: type[Net] = Net) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


def refusal(model: nn.Module) -> str:
    with pytest.raises(UserError) as caught:
        quantize(model, IMAGES, backend=BACKEND)
    return str(caught.value)


def test_weights_that_are_no_numbers() -> None:
    model = net()
    with torch.no_grad():
        model.body[0].weight[0, 0, 0, 0] = math.nan
    message = refusal(model)
    assert message.startswith(f"Calibration of Net (fx flow, engine {ENGINE}) stops in the ")
    assert "module 'body.0' (" in message
    assert "Check the weights and inputs of body.0 for values that are not numbers" in message


@pytest.mark.parametrize("value", [-0.5, math.nan])
def test_a_variance_without_a_square_root(value: float) -> None:
    model = net()
    model.body[1].running_var[3] = value
    message = refusal(model)
    assert message.startswith("The BatchNorm 'body.1' of Net has a running variance below zero, or")
    assert "in 1 of 8 channels" in message


def test_lowering() -> None:
    message = refusal(net(Untraceable))
    assert message.startswith(
        f"Lowering of Untraceable for {BACKEND} stops in the module 'pool' at "
    )
    assert "ValueError: not while tracing" in message
    assert "Keep pool in float32 (keep_float in the recipe)" in message


def test_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(prepared: nn.Module) -> NoReturn:
        node = next(n for n in prepared.graph.nodes if n.target == "body.0")
        raise NotImplementedError(f"no conversion of {node}")

    monkeypatch.setattr(fx, "convert_fx", fail)
    message = refusal(net())
    assert message.startswith(f"Conversion of Net (fx flow, engine {ENGINE}) stops in the module ")
    assert "module 'body.0' at " in message and "NotImplementedError: no conversion" in message


def test_fusing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: nn.Module, *_: object) -> NoReturn:
        module = model.get_submodule("stem.0")  # a local, as in torch's own frames
        raise AttributeError(f"{type(module).__name__} has no attribute")

    monkeypatch.setattr(fx, "prepare_fx", fail)
    assert refusal(net()).startswith(
        f"Fusing and observing of Net (fx flow, engine {ENGINE}) stops"
    )


@pytest.mark.parametrize(("phase", "name"), [("accuracy", "Evaluation"), ("speed", "Timing")])
def test_running(phase: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that runs where it is inspected, and stops where it is measured."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("mkldnn: no such layout. Details")

    measure = {"accuracy": "measure_accuracy", "speed": "measure_speed"}[phase]
    monkeypatch.setattr(case_module, measure, fail)
    subject = SimpleNamespace(
        recipe=SimpleNamespace(model="net"), latency=LatencyInput((1, 3, 8, 8), 1), thresholds=NONE
    )
    images = RandomImages(8, 0)
    case = CaseEvaluation(
        subject,  # type: ignore[arg-type]
        BACKENDS.get(BACKEND),
        SimpleNamespace(load=lambda: torch.zeros),  # type: ignore[arg-type]
        SimpleNamespace(fastest=None, times_ms={"eager": 1.0}),  # type: ignore[arg-type]
        provenance=SimpleNamespace(),  # type: ignore[arg-type]
        predictors=lambda _: (torch.zeros, torch.zeros, images),
    )
    with pytest.raises(UserError) as caught:
        case.measurement(phase)
    message = str(caught.value)
    assert message.startswith(f"{name} of net and its int8 file on {BACKEND} stops")
    assert "RuntimeError: mkldnn: no such layout)" in message
