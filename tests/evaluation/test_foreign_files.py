"""``ptqbench.validate`` on files that somebody else made: engines, inputs, outputs, recipes."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.foreign_artifacts import (
    AFFINE,
    AVAILABLE,
    FAST,
    Strangers,
    details,
    lowered,
    needs,
    verdicts,
)
from helpers.small_artifacts import SmallEager, noise, small
from torch import Tensor, nn
from torch.ao.quantization import convert, fuse_modules, get_default_qconfig, prepare

from ptqbench import Artifact, RunSettings, UserError, Verdict, validate
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.data.folder import open_folder
from ptqbench.data.image_set import Data
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.split import DataOptions
from ptqbench.measurement.cross_engine import UnderEngine, better_elsewhere

if TYPE_CHECKING:
    from conftest import UserCase, Workshop

PREPROCESSING = Preprocessing(64, 64)

pytestmark = pytest.mark.usefixtures("torch_settings")


@pytest.fixture(scope="module")
def strangers(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Strangers:
    return Strangers(workshop, tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def photos(user_case: UserCase) -> Data:
    return open_folder(user_case.data, DataOptions(PREPROCESSING, CLASSES, len(CLASSES)))


class Noise:
    """Images of noise with labels of no meaning."""

    name, classes = "noise", tuple("0123456789")
    labelled = True

    def __init__(self, start: int, count: int) -> None:
        self.count = self.limit = count
        self._start = start

    def _image(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._start + index)
        return torch.randn((1, 3, 16, 16), generator=generator)

    def batches(self, start: int, stop: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(start, stop, size):
            indices = range(first, min(first + size, stop))
            yield torch.cat([self._image(i) for i in indices]), torch.tensor(indices) % 10

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        return (f"{self._start + i}" for i in range(start, stop))


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module, after: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.model = model
        self.after = after

    def forward(self, x: Tensor) -> object:
        return self.after(self.model(x))


class Sized(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.reshape(-1, 3, 96, 96))


@needs("qnnpack")
def test_without_a_recipe_counts_come_from_the_float_graph(tmp_path: Path) -> None:
    torch.backends.quantized.engine = "qnnpack"
    model = small(SmallEager)
    ready = copy.deepcopy(model)
    groups = [["stem.0", "stem.1", "stem.2"], ["conv1", "bn1", "relu1"], ["conv2", "bn2"]]
    fuse_modules(ready, [*groups, ["depthwise", "bn3"]], inplace=True)
    ready.qconfig = get_default_qconfig("qnnpack")
    prepare(ready, inplace=True)(noise())
    path = lowered(convert(ready), tmp_path / "own.pt", size=16)
    data = Data("noise", Noise(0, 16), Noise(16, 64))
    report = validate(model, path, data, backend="qnnpack", settings=RunSettings(threads=1))
    (case,) = report.cases
    assert case.model == "SmallEager" and case.facts["input_shape"] == (1, 3, 16, 16)
    by_gate = verdicts(report)
    for name in ("fusion", "conversion", "fidelity", "saturation"):
        assert by_gate[name] is Verdict.PASS, details(report)[name]
    assert "5 of 5 promised layers" in details(report)["conversion"]
    assert by_gate["speedup"] is Verdict.UNVERIFIED
    with pytest.raises(UserError, match="no recipe for SmallEager that recommends a backend"):
        validate(model, path, data)


@needs("fbgemm", "onednn")
def test_weights_that_the_engine_cannot_pack(strangers: Strangers, photos: Data) -> None:
    path = strangers.save(strangers.eager("fbgemm", AFFINE), "affine")
    model = strangers.workshop.model("resnet18")
    report = validate(model, path, photos, backend="onednn", recipe="resnet18", settings=FAST)
    by_gate, texts = verdicts(report), details(report)
    assert report.exit_code() == 1
    assert by_gate["fidelity"] is Verdict.FAIL
    assert "ONEDNN only supports symmetric quantization of weight" in texts["fidelity"]
    assert "it does run under " in texts["fidelity"] and "fbgemm" in texts["fidelity"]
    # The graph is readable under an engine that can load it, and bytes are bytes.
    assert by_gate["fusion"] is by_gate["conversion"] is by_gate["size"] is Verdict.PASS
    for name in ("accuracy", "agreement", "speedup", "saturation"):
        assert by_gate[name] is Verdict.UNVERIFIED
        assert "does not run under onednn" in texts[name]


def test_a_better_engine_is_named() -> None:
    def under(engine: str, sqnr: float | None) -> UnderEngine:
        return UnderEngine(engine, False, sqnr)

    first = under("x86", 9.6)
    assert better_elsewhere([first, under("fbgemm", 9.7), under("onednn", 24.1)]) == under(
        "onednn", 24.1
    )
    assert better_elsewhere([first, under("fbgemm", 12.0), under("onednn", None)]) is None
    assert better_elsewhere([under("x86", float("inf")), under("onednn", float("inf"))]) is None
    # Noise as large as the logits, which is a measurement.
    assert better_elsewhere([under("x86", -9.0), under("fbgemm", 0.0)]) == under("fbgemm", 0.0)
    assert better_elsewhere([]) is None


@pytest.mark.slow
@needs("onednn", "x86")
def test_a_file_that_saturates_under_the_engine_it_was_not_made_for(
    strangers: Strangers, photos: Data
) -> None:
    if not BACKENDS.get("x86").saturates():
        pytest.skip("both engines add in 32 bits on this CPU")
    path = strangers.save(strangers.fx("onednn"), "mobilenet-for-onednn")
    model = strangers.workshop.model("mobilenet_v2")
    report = validate(model, path, photos, backend="x86", recipe="mobilenet_v2", settings=FAST)
    assert verdicts(report)["saturation"] is Verdict.FAIL
    assert any("was it quantized for that one?" in n for n in report.cases[0].facts["notes"])


def test_a_missing_stub_is_a_verdict(strangers: Strangers, photos: Data) -> None:
    engine = AVAILABLE[0]
    torch.backends.quantized.engine = engine
    model = copy.deepcopy(strangers.workshop.model("resnet18"))
    model.qconfig = get_default_qconfig(engine)
    prepare(model, inplace=True)(strangers.workshop.calibration[:2])
    path = strangers.save(convert(model), "no-stubs", "scripted")
    report = validate(
        strangers.workshop.model("resnet18"),
        path,
        photos,
        backend=engine,
        recipe="resnet18",
        settings=FAST,
    )
    texts = details(report)
    assert report.exit_code() == 1
    assert "a QuantStub is missing in front of it" in texts["fidelity"]
    assert "code/__torch__" not in texts["fidelity"]
    assert "conv1: the BatchNorm that follows is not fused" in texts["fusion"]
    assert verdicts(report)["accuracy"] is Verdict.UNVERIFIED


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (lambda y: (y, y), "returns a tuple instead of logits"),
        (lambda y: torch.quantize_per_tensor(y, 0.1, 0, torch.quint8), "a DeQuantStub"),
        (lambda y: y.half(), "outputs of type float16 instead of float32"),
        (lambda y: y[:, :10], "returns 10 classes for an image, but the float32 model has 16"),
        (lambda y: y.sum(), "returns outputs of shape  for an image"),
    ],
)
def test_outputs_of_another_kind(
    strangers: Strangers, photos: Data, tmp_path: Path, after: Callable[..., object], words: str
) -> None:
    engine = AVAILABLE[0]
    path = lowered(Wrapped(strangers.eager(engine), after), tmp_path / "outputs.pt")
    with pytest.raises(UserError) as caught:
        validate("resnet18", path, photos, backend=engine, settings=FAST)
    assert words in str(caught.value)


def test_images_of_another_size(strangers: Strangers, photos: Data, tmp_path: Path) -> None:
    engine = AVAILABLE[0]
    path = lowered(Sized(strangers.eager(engine)), tmp_path / "sized.pt", size=96)
    with pytest.raises(UserError) as caught:
        validate("resnet18", path, photos, backend=engine, settings=FAST)
    assert "does not run on images of 64×64" in str(caught.value)
    assert "but on images of 96×96" in str(caught.value)


@pytest.mark.slow
def test_one_image_at_a_time_and_probabilities(
    strangers: Strangers, photos: Data, tmp_path: Path
) -> None:
    engine = AVAILABLE[0]
    model = Wrapped(strangers.eager(engine), lambda y: y.softmax(1).view(1, 16))
    path = lowered(model, tmp_path / "single.pt")
    with pytest.raises(UserError, match="takes one image at a time, but latency"):
        batches = RunSettings(input_size=64, threads=1, batch_size=2)
        validate("resnet18", path, photos, backend=engine, settings=batches)
    report = validate("resnet18", path, photos, backend=engine, settings=FAST)
    notes = " ".join(report.cases[0].facts["notes"])
    assert "takes one image at a time only" in notes
    assert "gives probabilities, so it is compared with those of the float32 model" in notes
    # Logits against probabilities would be noise alone: about 0 dB.
    assert report.cases[0].metrics["sqnr_db"] > 10
    assert verdicts(report)["fidelity"] is Verdict.PASS
    assert report.cases[0].facts["evaluation_images"] == 96


def test_a_missing_engine_is_unverified(
    strangers: Strangers, photos: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = strangers.save(strangers.eager(AVAILABLE[0]), "for-nothing")
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"])
    report = validate("resnet18", path, photos, backend="qnnpack", settings=FAST)
    assert set(verdicts(report).values()) == {Verdict.UNVERIFIED}
    assert (report.exit_code(), report.exit_code(strict=True)) == (0, 3)


def test_a_file_that_kills_its_process_is_a_verdict(tmp_path: Path) -> None:
    deadly = importlib.import_module("helpers.deadly_backends")  # which registers backends
    model = small(SmallEager)
    path = lowered(copy.deepcopy(model), tmp_path / "deadly.pt", size=16)
    data = Data("noise", Noise(0, 16), Noise(16, 64))
    with deadly.registered():
        report = validate(model, path, data, backend="killing", settings=RunSettings(threads=1))
    by_gate, texts = verdicts(report), details(report)
    assert report.exit_code() == 1
    assert by_gate["fidelity"] is Verdict.FAIL
    assert "its process was killed by SIGSEGV" in texts["fidelity"]
    for name in ("fusion", "conversion", "accuracy", "agreement", "speedup", "saturation"):
        assert by_gate[name] is Verdict.UNVERIFIED, texts[name]
    assert by_gate["size"] is not Verdict.UNVERIFIED


def test_without_another_process_a_file_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(SmallEager)
    path = lowered(copy.deepcopy(model), tmp_path / "untried.pt", size=16)
    data = Data("noise", Noise(0, 16), Noise(16, 64))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    settings = RunSettings(threads=1)
    report = validate(model, path, data, backend=AVAILABLE[0], settings=settings)
    by_gate, texts = verdicts(report), details(report)
    assert by_gate.pop("size") is not Verdict.UNVERIFIED
    assert set(by_gate.values()) == {Verdict.UNVERIFIED}
    assert "could not be run in another process" in texts["fidelity"]


def test_a_backend_is_named_once(photos: Data) -> None:
    with pytest.raises(UserError, match="Pass one of them"):
        validate("resnet18", "x86", photos, backend="onednn")


def test_an_artifact_needs_metadata_and_a_verdict_does_not(strangers: Strangers) -> None:
    path = strangers.save(strangers.eager(AVAILABLE[0]), "without-metadata")
    with pytest.raises(UserError, match="or judge the file as it is: ptqbench gate"):
        Artifact.open(path)
