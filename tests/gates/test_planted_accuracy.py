"""The gates on accuracy and size: sound artifacts pass, planted defects are caught."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.gates import Evidence, GateResult, Verdict, evaluate
from ptqbench.measurement.accuracy import measure_accuracy
from ptqbench.measurement.size import measure_size
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES
from ptqbench.settings.thresholds import Thresholds

if TYPE_CHECKING:
    from conftest import Workshop

BACKEND = next((b.name for b in TORCH_ENGINES if b.availability() is None), "onednn")
MODEL = "squeezenet1_1"
REQUIRED = Thresholds(accuracy=0.9, top5=0.9, agreement=0.85, sqnr_db=18.0)
"""What 96 images can tell apart."""

pytestmark = [pytest.mark.usefixtures("torch_settings"), pytest.mark.slow]


class Positions:
    """Images that are only positions: logits are looked up."""

    name, classes = "scenes", tuple(map(str, range(16)))

    def __init__(self, labels: Tensor, labelled: bool) -> None:
        self.labelled = labelled
        self.count = self.limit = len(labels)
        self._labels = labels if labelled else torch.full_like(labels, -1)

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.arange(start, stop), self._labels[start:stop]

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        return map(str, range(start, stop))


def logits(workshop: Workshop, model: Model) -> Tensor:
    """The logits of a model for the evaluation images."""
    with torch.inference_mode():
        return torch.cat([model(images) for images in workshop.evaluation[0].split(48)])


def judged(
    workshop: Workshop, float32: Tensor, int8: Tensor, labelled: bool = True
) -> dict[str, GateResult]:
    images = Positions(workshop.evaluation[1], labelled)
    accuracy = measure_accuracy(float32.__getitem__, int8.__getitem__, images, batch_size=96)
    results = evaluate(
        Evidence(REQUIRED, "avx2", {"accuracy": accuracy}), ("accuracy", "agreement")
    )
    return {result.name: result for result in results}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", MODEL])
def test_sound_artifacts_pass(workshop: Workshop, name: str) -> None:
    float32 = logits(workshop, workshop.model(name))
    int8 = logits(workshop, workshop.built(name, BACKEND).artifact.load())
    results = judged(workshop, float32, int8)
    assert {gate: result.verdict for gate, result in results.items()} == {
        "accuracy": Verdict.PASS,
        "agreement": Verdict.PASS,
    }
    without = judged(workshop, float32, int8, labelled=False)
    assert without["accuracy"].verdict is Verdict.UNVERIFIED
    assert without["agreement"].verdict is Verdict.PASS


class Defects:
    """Artifacts of one model with something wrong."""

    def __init__(self, workshop: Workshop, folder: Path) -> None:
        self.workshop = workshop
        self.folder = folder
        self.float32 = logits(workshop, workshop.model(MODEL))

    def artifact(self, defect: str) -> Model:
        model, batches = self.workshop.model(MODEL), list(self.workshop.batches())
        if defect == "calibrated on black images":
            batches = [torch.zeros_like(batch) for batch in batches]
        elif defect == "calibrated on dim images":
            batches = [batch * 0.02 for batch in batches]
        elif defect == "classes in another order":
            model = copy.deepcopy(model)
            last = model.get_submodule("classifier.1")
            with torch.no_grad():
                last.weight.copy_(last.weight.roll(1, 0))
                last.bias.copy_(last.bias.roll(1, 0))
        elif defect == "weights of another training":
            torch.manual_seed(0)
            model = MODELS.get(MODEL).factory(16).eval()
        else:
            raise ValueError(defect)
        path = self.folder / f"{defect}.pt"
        return BACKENDS.get(BACKEND).build(model, RECIPES.get(MODEL), batches, path).load()


@pytest.fixture(scope="module")
def defects(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Defects:
    return Defects(workshop, tmp_path_factory.mktemp("defects"))


@pytest.mark.parametrize(
    "defect",
    [
        "calibrated on black images",
        "calibrated on dim images",
        "classes in another order",
        "weights of another training",
    ],
)
def test_defects_are_caught_with_labels_and_without(
    workshop: Workshop, defects: Defects, defect: str
) -> None:
    float32, int8 = defects.float32, logits(workshop, defects.artifact(defect))
    results = judged(workshop, float32, int8)
    assert {result.verdict for result in results.values()} == {Verdict.FAIL}
    for result in results.values():
        assert "calibration" in result.detail and "saturation" in result.detail
    without = judged(workshop, float32, int8, labelled=False)
    assert without["accuracy"].verdict is Verdict.UNVERIFIED
    assert without["agreement"].verdict is Verdict.FAIL


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", MODEL])
def test_the_size_of_sound_artifacts_and_of_one_that_was_not_converted(
    workshop: Workshop, tmp_path: Path, name: str
) -> None:
    int8 = workshop.built(name, BACKEND).artifact.path
    backend = BACKENDS.get(BACKEND)
    example = workshop.calibration[:1]
    float32 = backend.build_float(workshop.model(name), name, example, tmp_path / "f.pt").path
    thresholds = RECIPES.get(name).thresholds

    def size(artifact: Path, **changes: object) -> GateResult:
        measured = measure_size(float32, artifact)
        required = thresholds.replaced(changes)
        return evaluate(Evidence(required, "avx2", {"size": measured}), ["size"])[0]

    assert size(int8).verdict is Verdict.PASS
    assert size(float32).verdict is Verdict.FAIL
    assert "stayed in float32" in size(float32).detail
    twice = tmp_path / "twice"
    twice.mkdir()
    for copied in ("a.pt", "b.pt"):
        (twice / copied).write_bytes(int8.read_bytes())
    assert size(twice).verdict is Verdict.FAIL
    assert "saved twice" in size(twice).detail
    budget = int8.stat().st_size
    assert size(int8, max_bytes=budget).verdict is Verdict.PASS
    over = size(int8, max_bytes=budget - 1)
    assert over.verdict is Verdict.FAIL and "int8 is 1 bytes over it" in over.detail
