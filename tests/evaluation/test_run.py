"""A user's weights and photographs through `run` and `predict`, checked by hand."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
import torch
from helpers.runs import run_models
from PIL import Image
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES, TorchBackend
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.core.phases import Phases
from ptqbench.core.progress import silent
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.data.image_set import Data
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.evaluation import case_measurements as case_module
from ptqbench.evaluation import open_subject
from ptqbench.evaluation import run as run_module
from ptqbench.evaluation import subject as subject_module
from ptqbench.evaluation.case import CaseEvaluation
from ptqbench.evaluation.float_reference import FloatReference, as_probabilities
from ptqbench.evaluation.float_rivals import Opponent
from ptqbench.evaluation.predict import _backend, predict
from ptqbench.evaluation.result import METRICS, Report
from ptqbench.evaluation.run import run_requests
from ptqbench.evaluation.subject import LatencyInput, Subject
from ptqbench.gates import gates_in_order
from ptqbench.measurement.macs import count_macs
from ptqbench.models.catalog import MODELS
from ptqbench.models.custom.registration import open_recipe
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.reporting.json_report import schema
from ptqbench.settings.requests import CaseRequest
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.thresholds import Thresholds
from ptqbench.weights.load import load_weights
from ptqbench.weights.open_weights import open_weights

if TYPE_CHECKING:
    from conftest import UserCase, Workshop

AVAILABLE = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]
CHOSEN = AVAILABLE[:2]

pytestmark = pytest.mark.usefixtures("torch_settings")


class Run:
    """One run of a user's case on two backends, its artifacts kept."""

    def __init__(self, user_case: UserCase, folder: Path) -> None:
        self.folder = folder
        self.floats: list[str] = []
        self.phases = Phases()
        build_float = TorchBackend.build_float

        def spy(backend: TorchBackend, *arguments: Any) -> Artifact:
            self.floats.append(backend.name)
            return build_float(backend, *arguments)

        settings = RunSettings(
            baseline="runtime",  # whatever else is installed
            data=str(user_case.data),
            weights=str(user_case.weights),
            input_size=64,
            threads=1,
            artifacts=str(folder / "kept"),
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TorchBackend, "build_float", spy)
            models = [user_case.model]
            self.report: Report = run_models(models, CHOSEN, settings, self.phases)


@pytest.fixture(scope="module")
def run(user_case: UserCase, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(user_case, tmp_path_factory.mktemp("run"))


def photographs(user_case: UserCase, split: str) -> tuple[Tensor, Tensor]:
    """The images of a split, read without the package's help."""
    paths = sorted((user_case.data / split).glob("*/*"))
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    values = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    images = torch.from_numpy(values.astype(np.float32)).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([CLASSES.index(path.parent.name) for path in paths])


def share(logits: Tensor, labels: Tensor, k: int = 1) -> float:
    return float((logits.topk(k).indices == labels[:, None]).any(1).double().mean())


def test_metrics_against_a_count_by_hand(run: Run, user_case: UserCase, workshop: Workshop) -> None:
    images, labels = photographs(user_case, "val")
    assert len(labels) == 96
    with torch.inference_mode():
        float32 = workshop.model(user_case.model)(images)
        for case in run.report.cases:
            path = run.folder / "kept" / f"{user_case.model}-{case.backend}.int8.pt"
            int8 = Artifact.open(path).load()(images)
            metrics = {name: case.metrics[name] for name in METRICS}
            one_image = 1 / len(labels) + 1e-9  # kernels may break a tie otherwise
            assert metrics["float32_top1"] == pytest.approx(share(float32, labels), abs=one_image)
            assert metrics["int8_top1"] == pytest.approx(share(int8, labels), abs=one_image)
            assert metrics["float32_top5"] == pytest.approx(
                share(float32, labels, 5), abs=one_image
            )
            agreement = float((float32.argmax(1) == int8.argmax(1)).double().mean())
            assert metrics["agreement"] == pytest.approx(agreement, abs=one_image)
            noise = float((float32 - int8).double().square().sum())
            sqnr = 10 * np.log10(float(float32.double().square().sum()) / noise)
            assert metrics["sqnr_db"] == pytest.approx(sqnr, abs=0.1)
            assert metrics["int8_bytes"] == path.stat().st_size
            assert metrics["size_ratio"] == metrics["float32_bytes"] / metrics["int8_bytes"]
            assert case.facts["evaluation_images"] == len(labels)
            assert case.facts["calibration_images"] == 48


def test_circumstances_are_told(run: Run, user_case: UserCase) -> None:
    assert [case.backend for case in run.report.cases] == CHOSEN
    for case in run.report.cases:
        assert case.model == user_case.model
        assert case.weights == str(user_case.weights)
        assert case.data == str(user_case.data)
        assert case.recipe == RECIPES.get(user_case.model).hash
        assert [gate.name for gate in case.gates] == [gate.name for gate in gates_in_order()]
        assert case.facts["engine"] == BACKENDS.get(case.backend).engine
        assert case.facts["input_shape"] == (1, 3, 64, 64)
        assert case.facts["threads"] == 1
        assert -1 <= case.facts["pairs_correlation"] <= 1
        assert case.facts["flow"] == "fx"
        assert case.facts["float32_lowering"] in ("frozen", "optimized")
        assert case.facts["int8_share_of_macs"] == 1.0
        assert 10e6 < case.facts["macs"] < 50e6
        assert len(str(case.facts["weights_sha256"])) == 64
    settings = run.report.settings
    assert (settings["seed"], settings["threads"], settings["input_size"]) == (0, 1, 64)
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(run.report.to_dict())))


def test_float32_is_made_once_for_all_backends(run: Run) -> None:
    assert len(run.floats) == 1
    files = sorted(path.name for path in (run.folder / "kept").iterdir())
    model = run.report.cases[0].model
    assert files == sorted([f"{model}.float32.pt", *(f"{model}-{b}.int8.pt" for b in CHOSEN)])


def test_the_time_is_accounted_for(run: Run) -> None:
    names = [phase.name for phase in run.phases.records()]
    assert names[:2] == ["load weights", "open images"]
    forward = {phase.name for phase in run.phases.records() if phase.forward}
    assert {"calibration", "float32 predictions", "int8 predictions", "speed pairs"} <= forward
    assert len(set(names)) == len(names)


def test_artifacts_that_are_not_kept_go_away(
    user_case: UserCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    listings: list[list[str]] = []

    def stop(subject: Subject, *_: object, **__: object) -> None:
        listings.append([path.name for path in subject.folder.iterdir()])
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "build_int8", stop)
    settings = RunSettings(data=str(user_case.data), weights=str(user_case.weights))
    with pytest.raises(KeyboardInterrupt):
        run_models([user_case.model], AVAILABLE[:1], settings)
    assert listings == [[]]  # the folder was there
    assert list(tmp_path.iterdir()) == []


# predict


def test_predict_against_the_model_itself(
    user_case: UserCase, workshop: Workshop, tmp_path: Path
) -> None:
    images, _ = workshop.scenes(2, 1, start=500)
    path = tmp_path / "photo.png"
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images[0].permute(1, 2, 0) * std + mean) * 255
    Image.fromarray(pixels.round().to(torch.uint8).numpy()).save(path)
    options = {"weights": str(user_case.weights), "data": str(user_case.data)}
    request = CaseRequest(user_case.model, (AVAILABLE[0],), "--backend", RunSettings(**options))
    prediction = predict(path, request)
    assert prediction.backend == AVAILABLE[0]
    with torch.inference_mode():
        shares = workshop.model(user_case.model)(images)[0].softmax(0)
    first = shares.argsort(descending=True)[:5]
    assert [label for label, _ in prediction.float32] == [CLASSES[i] for i in first]
    assert [p for _, p in prediction.float32] == pytest.approx(
        [float(shares[i]) for i in first], abs=1e-5
    )
    assert len(prediction.int8) == 5
    assert all(label in CLASSES and 0 < p < 1 for label, p in prediction.int8)
    by_name = dict(prediction.int8)
    assert by_name[prediction.float32[0][0]] == pytest.approx(prediction.float32[0][1], abs=0.2)
    assert (prediction.model, prediction.backend) == (user_case.model, AVAILABLE[0])


# Memory


class Streamed:
    """Images that exist only while somebody holds them; counts how many do at a time."""

    classes = CLASSES
    labelled = True
    name = "streamed"

    def __init__(self, count: int, seed: int) -> None:
        self.count = self.limit = count
        self.seed = seed
        self.most = 0
        self._alive: list[weakref.ref[Tensor]] = []

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(start, stop, batch_size):
            indices = range(first, min(first + batch_size, stop))
            generator = torch.Generator().manual_seed(self.seed + first)
            images = torch.randn((len(indices), 3, 32, 32), generator=generator)
            self._alive = [ref for ref in self._alive if ref() is not None]
            self._alive.append(weakref.ref(images))
            self.most = max(self.most, len(self._alive))
            yield images, torch.tensor([i % len(CLASSES) for i in indices])
            del images

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        return (f"{self.seed}/{index}" for index in range(start, stop))


def test_memory_does_not_grow_with_the_images(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (case_module, subject_module):
        monkeypatch.setattr(module, "BATCH_SIZE", 4)
    model = workshop.model("squeezenet1_1")
    backend = BACKENDS.get(AVAILABLE[0])
    artifact = workshop.built("squeezenet1_1", backend.name).artifact
    most = []
    for count in (12, 120):
        data = Data("streamed", Streamed(count, seed=1), Streamed(count, seed=1000))
        recipe = workshop.recipe("squeezenet1_1")
        subject = subject_of(model, recipe, data, LatencyInput((1, 3, 32, 32), 1), tmp_path)
        assert sum(map(len, subject.calibration_batches())) == count
        reference = Ready(model, next(data.calibration.batches(0, 1, 1))[0])
        result = CaseEvaluation(subject, backend, artifact, reference).judge()
        assert result.facts["evaluation_images"] == count
        most.append((data.calibration.most, data.evaluation.most))
    assert most[0] == most[1]
    assert max(most[1]) <= 3


def subject_of(
    model: nn.Module, recipe: Recipe, data: Data, latency: LatencyInput, folder: Path
) -> Subject:
    return Subject(
        model=model,
        recipe=recipe,
        weights="module",
        preprocessing=Preprocessing(),
        data=data,
        latency=latency,
        folder=folder,
        facts={},
        thresholds=recipe.thresholds,
        settings=RunSettings(),
    )


class Ready:
    """A float32 side whose lowering was chosen without timing."""

    lowering = "frozen"

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.fastest = self.predictor = model
        self.graph = read_float_graph(model, example)
        self.times_ms = {"frozen": 1.0, "eager": 1.0}
        self.macs = count_macs(model, example)
        info = ArtifactInfo("float32", AVAILABLE[0], "", "squeezenet1_1")
        self.artifact = Artifact(Path(__file__), info)


def test_a_lowering_that_cannot_run_the_images_does_not_judge_them(tmp_path: Path) -> None:
    # oneDNN's layouts know no adaptive pooling from 32 to 6 pixels, as AlexNet's of small pictures.
    pooled = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(6), nn.Flatten())
    model = nn.Sequential(pooled, nn.Linear(288, 16)).eval()
    images = Streamed(8, seed=1)
    pixels, _ = next(images.batches(0, 8, 8))
    recipe, latency = open_recipe("small"), LatencyInput((1, 3, 12, 12), threads=1)
    subject = subject_of(model, recipe, Data("few", images, images), latency, tmp_path)
    side = FloatReference(subject, BACKENDS.get(AVAILABLE[0]), Phases())
    side.times_ms = {"optimized": 1.0, "frozen": 2.0, "eager": 3.0}
    assert side.lowering == "optimized"
    side.fastest(latency.example())
    with pytest.raises(RuntimeError, match="not divisible"):
        side.fastest(pixels)
    assert torch.allclose(side.predictor(pixels), model(pixels), atol=1e-5)


def test_a_probability_is_compared_with_a_probability() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(as_probabilities(lambda images: logits)(logits), logits.softmax(1))
    probabilities = as_probabilities(lambda images: logits.softmax(1))(logits)
    assert torch.equal(probabilities, logits.softmax(1))


@pytest.mark.parametrize(
    ("targets", "threshold"), [((), 1.5), ((instruction_set(),), 1.5), (("no cpu",), None)]
)
def test_pairs_are_added_wherever_the_gate_judges(
    monkeypatch: pytest.MonkeyPatch, targets: tuple[str, ...], threshold: float | None
) -> None:
    thresholds: list[float | None] = []

    def measure(*_: object, threshold: float | None, **options: object) -> SimpleNamespace:
        thresholds.append(threshold)
        return SimpleNamespace(speedup=SimpleNamespace(low=9.0))

    monkeypatch.setattr(case_module, "measure_speed", measure)
    reference = SimpleNamespace(fastest=None, times_ms={"eager": 1.0})
    case = SimpleNamespace(
        reference=reference,
        opponent=Opponent(reference, "torch"),  # type: ignore[arg-type]
        artifact=SimpleNamespace(load=lambda: None),
        subject=SimpleNamespace(
            latency=LatencyInput((1, 3, 8, 8), 1),
            thresholds=Thresholds(speedup={instruction_set(): 1.5}),
        ),
        backend=SimpleNamespace(targets=targets),
        phases=Phases(),
        progress=silent,
        step=lambda name: nullcontext(),
    )
    case_module.measure_speedup(case)  # type: ignore[arg-type]
    assert thresholds == [threshold]


# Mistakes


@pytest.mark.parametrize(
    ("model", "backends", "words"),
    [
        ("resnet81", ("x86",), "Unknown recipe 'resnet81'. Did you mean resnet18"),
        ("resnet18", ("x68",), "Unknown backend 'x68'. Did you mean x86"),
    ],
)
def test_names_are_checked_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, model: str, backends: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr(run_module, "open_subject", None)
    with pytest.raises(UserError) as caught:
        run_requests([CaseRequest("resnet18", ("x86",), "a"), CaseRequest(model, backends, "b")])
    assert words in str(caught.value)


def test_requests_keep_their_own_settings_and_the_report_tells_them_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"])
    for backend in (each for each in BACKENDS if each.runtime != "torch"):
        monkeypatch.setattr(type(backend), "availability", lambda _: "it is not installed")
    shared = {"threads": 1, "batch_size": 2}
    requests = [
        CaseRequest("resnet18", ("x86", "onednn"), "a file", RunSettings(**shared, seed=3)),
        CaseRequest("squeezenet1_1", ("x86",), "a file", RunSettings(**shared, seed=4)),
    ]
    report = run_requests(requests)
    cases = [(case.model, case.backend) for case in report.cases]
    assert cases == [("resnet18", "x86"), ("resnet18", "onednn"), ("squeezenet1_1", "x86")]
    assert report.settings["models"] == {"resnet18": {"seed": 3}, "squeezenet1_1": {"seed": 4}}
    assert report.settings["threads"] == 1 and "seed" not in report.settings
    alike = run_requests([replace(requests[0], settings=RunSettings(**shared))])
    assert alike.settings["seed"] == 0 and "models" not in alike.settings
    with pytest.raises(UserError, match=r"a file: no backend that '\*' matches can run here"):
        run_requests([replace(requests[0], backends=("*",))])
    with pytest.raises(UserError, match=r"a file: Unknown backend 'x68'\. Did you mean x86"):
        run_requests([replace(requests[0], backends=("x68",))])


def test_predict_says_what_is_wrong(
    user_case: UserCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 not a photograph")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        predict(broken, CaseRequest("resnet18", (AVAILABLE[0],), "recipe"))
    with pytest.raises(UserError, match="Did you mean resnet18"):
        predict(broken, CaseRequest("resnet81", (AVAILABLE[0],), "recipe"))
    picture = next((user_case.data / "val").glob("*/*.png"))
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"])
    with pytest.raises(UserError, match="backend qnnpack cannot be used here"):
        predict(picture, CaseRequest("resnet18", ("qnnpack",), "--backend"))


def test_predict_loads_the_weights_once(
    user_case: UserCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    monkeypatch.setattr(
        open_subject,
        "open_weights",
        lambda *args: loads.append(args[1]) or open_weights(*args),  # type: ignore[func-returns-value]
    )
    weights, data = str(user_case.weights), str(user_case.data)
    settings = RunSettings(weights=weights, data=data)
    picture = next((user_case.data / "val").glob("*/*.png"))
    predict(picture, CaseRequest(user_case.model, (AVAILABLE[0],), "--backend", settings))
    assert loads == [weights]


def test_an_unavailable_case_has_the_thresholds_that_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"])
    settings = RunSettings(thresholds={"agreement": 0.5, "speedup": {"avx2": 9.0}})
    (case,) = run_requests([CaseRequest("resnet18", ("x86",), "a test", settings)]).cases
    assert case.evidence is not None
    assert case.evidence.thresholds.agreement == 0.5
    assert case.evidence.thresholds.speedup["avx2"] == 9.0


def test_of_several_backends_predict_takes_the_recommended_or_the_first_that_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = RECIPES.get("resnet18")

    def choice(*patterns: str) -> str:
        return _backend(recipe, CaseRequest("resnet18", patterns, "a file")).name

    others = [name for name in BACKENDS.names() if name != recipe.backend]
    refused: set[str] = set()
    monkeypatch.setattr(
        TorchBackend, "refusal", lambda self, _: "no engine" if self.name in refused else None
    )
    assert choice(*others, recipe.backend) == recipe.backend
    assert choice(*others) == others[0]
    refused.add(others[0])
    assert choice(*others) == others[1]
    assert choice(others[0]) == others[0]
    refused.add(recipe.backend)
    assert choice("*") == others[1]
    with pytest.raises(UserError, match=r"a file: Unknown backend 'x68'\. Did you mean x86"):
        choice("x68")


def test_the_sidecar_of_the_case_was_read(user_case: UserCase) -> None:
    weights = load_weights(MODELS.get(user_case.model), str(user_case.weights))
    assert weights.classes == CLASSES
    assert weights.preprocessing.crop == 64
