"""The Python door: names, modules, artifacts, files and backends go in, a verdict comes out."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import ptqbench
from ptqbench import RunSettings, UserError, Verdict, api, quantize, validate
from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.data.folder import open_folder
from ptqbench.data.image_set import Data
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.split import DataOptions
from ptqbench.evaluation.case import unavailable_case
from ptqbench.evaluation.foreign import gate
from ptqbench.evaluation.result import CaseResult
from ptqbench.evaluation.subject import Subject
from ptqbench.gates import gates_in_order
from ptqbench.recipes import RECIPES

if TYPE_CHECKING:
    from conftest import UserCase, Workshop

AVAILABLE = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]
MODEL = "squeezenet1_1"
FAST = RunSettings(input_size=64, threads=1)
PREPROCESSING = Preprocessing(64, 64)

pytestmark = pytest.mark.usefixtures("torch_settings")


@pytest.fixture(scope="module")
def artifact(workshop: Workshop) -> Artifact:
    return workshop.built(MODEL, AVAILABLE[0]).artifact


@pytest.fixture(scope="module")
def photos(user_case: UserCase) -> Data:
    return open_folder(user_case.data, DataOptions(PREPROCESSING, CLASSES, len(CLASSES)))


# quantize


def test_a_module_is_quantized_like_the_recipe_says(
    workshop: Workshop, artifact: Artifact, tmp_path: Path
) -> None:
    model = copy.deepcopy(workshop.model(MODEL)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = tmp_path / "mine.pt"
    copied = quantize(model, workshop.batches(), backend=AVAILABLE[0], recipe=MODEL, path=path)
    assert copied == Artifact.open(path)
    assert copied.info == artifact.info
    images = workshop.evaluation[0][:8]
    with torch.inference_mode():
        assert torch.equal(copied.load()(images), artifact.load()(images))
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_name_is_quantized_with_its_recipe(user_case: UserCase) -> None:
    artifact = quantize(MODEL, str(user_case.data), weights=str(user_case.weights))
    recipe = RECIPES.get(MODEL)
    info = artifact.info
    assert (info.model, info.backend, info.recipe_hash) == (MODEL, recipe.backend, recipe.hash)
    assert info.calibration_images == 48
    assert artifact.path.is_file()


def test_a_changed_recipe_is_another_recipe(workshop: Workshop, tmp_path: Path) -> None:
    recipe = workshop.recipe(MODEL, observer="minmax", keep_float=("classifier.1",))
    artifact = quantize(
        workshop.model(MODEL), workshop.batches(), recipe=recipe, path=tmp_path / "mine.pt"
    )
    assert artifact.info.recipe_hash == recipe.hash != RECIPES.get(MODEL).hash


@pytest.mark.parametrize(
    ("batches", "kind"),
    [
        ([[torch.zeros(2, 3, 64, 64), torch.zeros(2)]], "list"),
        (torch.zeros(2, 3, 64, 64), "3-D tensor"),
        (["photos"], "str"),
    ],
)
def test_batches_that_are_not_images_are_refused(
    workshop: Workshop, tmp_path: Path, batches: Any, kind: str
) -> None:
    with pytest.raises(UserError, match=f"calibration must yield .* but yielded a {kind}"):
        quantize(workshop.model(MODEL), batches, recipe=MODEL, path=tmp_path / "int8.pt")
    assert not list(tmp_path.iterdir())


# validate


def check(report: ptqbench.Report, backend: str, images: int = 96) -> None:
    (case,) = report.cases
    assert (case.model, case.backend) == (MODEL, backend)
    assert [gate.name for gate in case.gates] == [gate.name for gate in gates_in_order()]
    assert case.facts["evaluation_images"] == images
    assert case.facts["input_shape"] == (1, 3, 64, 64)
    verdicts = {gate.name: gate.verdict for gate in case.gates}
    assert verdicts["size"] is Verdict.PASS
    assert case.metrics["agreement"] is not None and case.metrics["agreement"] > 0.8


def test_a_name_and_an_artifact(user_case: UserCase, artifact: Artifact) -> None:
    torch.set_num_threads(3)
    engine = torch.backends.quantized.supported_engines[-1]
    torch.backends.quantized.engine = engine
    report = validate(
        MODEL, artifact, user_case.data, weights=str(user_case.weights), settings=FAST
    )
    check(report, AVAILABLE[0])
    assert report.cases[0].weights == str(user_case.weights)
    # What a reader must know about the images is said here as at the command line.
    assert report.cases[0].facts["notes"] == (
        "Calibration images come from train/. By content hash, none of them is evaluated.",
    )
    # The caller's process is left as it was.
    assert (torch.get_num_threads(), torch.backends.quantized.engine) == (3, engine)


def test_a_module_and_the_path_of_an_artifact(
    workshop: Workshop, photos: Data, artifact: Artifact
) -> None:
    model = copy.deepcopy(workshop.model(MODEL)).train()
    report = validate(model, str(artifact.path), photos, recipe=MODEL, settings=FAST)
    check(report, AVAILABLE[0])
    assert report.cases[0].weights == "module"
    assert model.training


def test_a_module_and_a_backend(workshop: Workshop, user_case: UserCase) -> None:
    report = validate(
        workshop.model(MODEL),
        AVAILABLE[-1],
        user_case.data,
        recipe=RECIPES.get(MODEL),
        preprocessing=PREPROCESSING,
        classes=CLASSES,
        settings=FAST,
    )
    check(report, AVAILABLE[-1])
    assert report.cases[0].facts["calibration_images"] == 48


def test_a_missing_engine_is_unverified(
    workshop: Workshop, photos: Data, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"])
    for source in (artifact, artifact.path, AVAILABLE[0]):
        report = validate(workshop.model(MODEL), source, photos, recipe=MODEL, settings=FAST)
        assert {gate.verdict for gate in report.cases[0].gates} == {Verdict.UNVERIFIED}
        assert (report.exit_code(), report.exit_code(strict=True)) == (0, 3)


# Mistakes


def test_a_module_needs_images_that_are_prepared(workshop: Workshop) -> None:
    with pytest.raises(UserError, match="a module does not say how they are prepared"):
        quantize(workshop.model(MODEL), recipe=MODEL)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quantize("resnet81"), "Unknown model 'resnet81'. Did you mean resnet18"),
        (lambda: quantize("resnet18", backend="x68"), "Unknown backend 'x68'. Did you mean x86"),
        (lambda: quantize("resnet18", recipe="resnet"), "Unknown recipe 'resnet'"),
        (lambda: validate("resnet81", "x86"), "Unknown model 'resnet81'"),
        (lambda: validate("resnet18", "x68"), "neither a backend nor a file. Did you mean x86"),
    ],
)
def test_unknown_names(call: object, words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert words in str(caught.value)


def test_what_cannot_be_judged_is_refused(
    workshop: Workshop, photos: Data, artifact: Artifact, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.pt"
    garbage.write_bytes(b"garbage")
    with pytest.raises(UserError, match="cannot be loaded as TorchScript"):
        validate(MODEL, garbage, photos)
    with pytest.raises(UserError, match="was built from squeezenet1_1, but the model is resnet18"):
        validate("resnet18", artifact, photos)
    backend = BACKENDS.get(AVAILABLE[0])
    path = tmp_path / "float32.pt"
    floats = backend.build_float(nn.Flatten(), MODEL, workshop.calibration[:1], path)
    with pytest.raises(UserError, match="is a float32 artifact"):
        validate(MODEL, floats, photos)


def test_calibrating_on_the_evaluation_images_is_refused(
    workshop: Workshop, photos: Data, artifact: Artifact
) -> None:
    same = Data("photos", photos.evaluation, photos.evaluation)
    with pytest.raises(UserError, match="evaluation images of photos are calibration images too"):
        validate(workshop.model(MODEL), artifact, same, recipe=MODEL, settings=FAST)


# What was asked for is what is measured, or refused


@pytest.fixture
def subjects(monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
    """The subjects that are evaluated; nothing is measured."""
    opened: list[Subject] = []

    def evaluated(subject: Subject, backend: Backend, *_: object) -> CaseResult:
        opened.append(subject)
        return unavailable_case(subject.recipe, backend, "not measured", subject.settings)

    monkeypatch.setattr(api, "_evaluated", evaluated)
    return opened


def test_the_settings_name_weights_and_images(user_case: UserCase, subjects: list[Subject]) -> None:
    weights, data = str(user_case.weights), str(user_case.data)
    settings = RunSettings(weights=weights, data=data, input_size=64, threads=1)
    report = validate(MODEL, AVAILABLE[0], settings=settings)
    assert (subjects[0].weights, subjects[0].data.name) == (weights, data)
    assert (report.settings["weights"], report.settings["data"]) == (weights, data)
    assert (report.cases[0].weights, report.cases[0].data) == (weights, data)


def test_arguments_take_precedence_and_the_report_shows_what_was_used(
    user_case: UserCase, photos: Data, workshop: Workshop, subjects: list[Subject]
) -> None:
    weights, data = str(user_case.weights), str(user_case.data)
    settings = RunSettings(weights="nowhere.pt", data="nowhere", input_size=64, threads=1)
    report = validate(MODEL, AVAILABLE[0], data, weights=weights, settings=settings)
    assert (report.settings["weights"], report.settings["data"]) == (weights, data)
    report = validate(workshop.model(MODEL), AVAILABLE[0], photos, recipe=MODEL, settings=FAST)
    assert (report.settings["weights"], report.settings["data"]) == ("module", photos.name)
    assert [subject.weights for subject in subjects] == [weights, "module"]


@pytest.mark.parametrize(
    ("model", "artifact_kind", "options", "words"),
    [
        ("name", "backend", {"preprocessing": Preprocessing(64, 64)}, "preprocessing applies to a"),
        ("name", "backend", {"classes": ["a"]}, "classes applies to a module, but the model is"),
        ("module", "backend", {"weights": "fixture"}, "weights applies to a named model"),
        (
            "module", "backend", {"settings": RunSettings(weights="fixture")},
            "weights applies to a named model",
        ),
        (
            "module", "backend", {"settings": RunSettings(overrides={"crop": 64})},
            "settings.overrides applies to a named model",
        ),
        ("name", "backend", {"keep_float": ["layer1"]}, "keep_float applies to a file"),
        ("module", "backend", {"settings": RunSettings(limit=5)}, "settings.limit does not apply"),
        ("module", "backend", {"settings": RunSettings(data="x")}, "settings.data does not apply"),
        ("module", "backend", {"preprocessing": PREPROCESSING}, "preprocessing does not apply"),
        ("module", "file", {"classes": ["a"]}, "classes does not apply to data"),
        (
            "name", "backend", {"settings": RunSettings(overrides={"crop": 64})},
            "settings.overrides does not apply to data",
        ),
        ("name", "file", {"backend": "x68"}, "Unknown backend 'x68'"),
        ("name", "other", {"backend": "x86"}, "backend='x86' another"),
    ],
)  # fmt: skip
def test_what_does_not_apply_is_refused_by_name(
    workshop: Workshop,
    photos: Data,
    artifact: Artifact,
    model: str,
    artifact_kind: str,
    options: dict[str, Any],
    words: str,
) -> None:
    subject = MODEL if model == "name" else workshop.model(MODEL)
    files = {"backend": AVAILABLE[0], "file": artifact.path, "other": "qnnpack"}
    with pytest.raises(UserError) as caught:
        validate(subject, files[artifact_kind], photos, **options)
    assert words in str(caught.value)


def test_weights_are_not_for_a_module_to_quantize(workshop: Workshop) -> None:
    with pytest.raises(UserError, match="weights applies to a named model"):
        quantize(workshop.model(MODEL), workshop.batches(), weights="fixture")


def test_a_size_that_a_model_cannot_take_is_refused(workshop: Workshop) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16)).eval()
    settings = RunSettings(input_size=48, threads=1)
    preprocessing = Preprocessing(32, 32)
    with pytest.raises(UserError, match="48"):
        validate(module, AVAILABLE[0], preprocessing=preprocessing, settings=settings)


def test_the_input_size_is_that_of_the_first_picture_that_can_be_decoded(
    workshop: Workshop, user_case: UserCase, tmp_path: Path, subjects: list[Subject]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(user_case.data, folder)
    for split in ("train", "val"):
        sorted((folder / split).glob("*/*"))[0].write_bytes(b"no picture")
    options = DataOptions(
        PREPROCESSING, CLASSES, len(CLASSES), reading=RunSettings(broken_share=0.1)
    )
    opened = open_folder(folder, options)
    module = nn.Sequential(workshop.model(MODEL))
    validate(module, AVAILABLE[0], opened, settings=RunSettings(threads=1))
    assert subjects[0].latency.shape == (1, 3, 64, 64)


@pytest.mark.slow
def test_a_file_is_judged_the_same_through_every_door(
    workshop: Workshop, user_case: UserCase, tmp_path: Path
) -> None:
    recipe = workshop.recipe(MODEL, observer="minmax")
    path = tmp_path / "minmax.pt"
    artifact = quantize(
        workshop.model(MODEL), workshop.batches(), backend="onednn", recipe=recipe, path=path
    )
    settings = replace(FAST, weights=str(user_case.weights), data=str(user_case.data))
    (ours,) = validate(MODEL, artifact, settings=settings).cases
    (theirs,) = gate(MODEL, path, settings=settings).cases
    # The recipe of today did not build it.
    assert ours.recipe == theirs.recipe == recipe.hash != RECIPES.get(MODEL).hash
    first, second = ({gate.name: gate for gate in case.gates} for case in (ours, theirs))
    for name in ("fusion", "conversion", "accuracy", "agreement", "fidelity"):
        assert first[name] == second[name]
    # TorchScript numbers the classes of a process, and their names are in the float32 file.
    assert first["size"].verdict is second["size"].verdict
    assert first["size"].observed == pytest.approx(second["size"].observed, rel=1e-4)
