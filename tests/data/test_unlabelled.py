"""A real model on pictures without labels, through each door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest
from PIL import Image

from ptqbench import Report, RunSettings, Verdict, validate
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.cli import main
from ptqbench.data.fixture.scenes import render
from ptqbench.measurement.artifact_inspection import ArtifactInspection
from ptqbench.measurement.fidelity import Fidelity
from ptqbench.reporting.json_report import schema
from ptqbench.settings.requests import CaseRequest
from ptqbench.testing.shared_runner import SharedRunner

if TYPE_CHECKING:
    from conftest import UserCase

MODEL = "squeezenet1_1"
BACKEND = next((b.name for b in TORCH_ENGINES if b.availability() is None), "onednn")
IMAGES = 40
UNKNOWN = ("float32_top1", "int8_top1", "float32_top5", "int8_top5")

pytestmark = [pytest.mark.usefixtures("torch_settings"), pytest.mark.slow]


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scenes of every class in one folder, named by number alone."""
    folder = tmp_path_factory.mktemp("loose")
    for index in range(IMAGES):
        Image.fromarray(render(0, 2, index, index % 16)).save(folder / f"{index:03}.png")
    return folder


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes time and has nothing to do with labels: the fresh process."""
    same = Fidelity(4, 4, 0.0, BACKEND, BACKEND, BACKEND)
    monkeypatch.setattr(ArtifactInspection, "fidelity", same)


def check(report: Report) -> None:
    (case,) = report.cases
    gates = {gate.name: gate for gate in case.gates}
    assert gates["accuracy"].verdict is Verdict.UNVERIFIED
    assert "The 32 images have no labels" in gates["accuracy"].detail
    assert gates["agreement"].verdict is not Verdict.UNVERIFIED
    assert gates["agreement"].n == 32
    assert "no labels, so these two decide" in gates["agreement"].detail
    assert {case.metrics[name] for name in UNKNOWN} == {None}
    agreement, sqnr = case.metrics["agreement"], case.metrics["sqnr_db"]
    assert agreement is not None and agreement > 0.8
    assert sqnr is not None and 15 < sqnr < 40
    assert case.facts["labelled"] is False
    assert (case.facts["evaluation_images"], case.facts["calibration_images"]) == (32, 8)
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(report.to_dict())))


def test_validate(user_case: UserCase, loose: Path) -> None:
    settings = RunSettings(
        input_size=64, threads=1, thresholds={"agreement": 0.5, "sqnr_db": 15, "max_bytes": 1000}
    )
    report = validate(MODEL, BACKEND, loose, weights=str(user_case.weights), settings=settings)
    check(report)
    gates = {gate.name: gate for gate in report.cases[0].gates}
    assert gates["agreement"].verdict is Verdict.PASS
    assert (gates["size"].verdict, gates["size"].threshold) == (Verdict.FAIL, 1000)
    assert report.settings["thresholds"]["max_bytes"] == 1000  # type: ignore[index]


def test_run_at_the_command_line(
    user_case: UserCase, loose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    argv = [
        *("run", MODEL, "--weights", str(user_case.weights), "--data", str(loose)),
        *("--input-size", "64", "--threads", "1", "--backend", BACKEND, "--json", str(path)),
        *("--threshold", "sqnr_db=90", "--max-bytes", "2 MB"),
    ]
    assert main(argv) == 1
    (case,) = json.loads(path.read_text())["cases"]
    gates = {gate["name"]: gate for gate in case["gates"]}
    assert gates["agreement"]["verdict"] == "fail"
    assert gates["agreement"]["criterion"] == "sqnr_db"
    assert gates["accuracy"]["verdict"] == "unverified"
    assert "the budget is 2,000,000 bytes" in gates["size"]["detail"]
    assert any("no labels" in note for note in case["facts"]["notes"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "needs 90.0 dB" in shown
    assert "The 32 images have no labels" in shown


def test_the_suite(user_case: UserCase, loose: Path, tmp_path: Path) -> None:
    settings = RunSettings(
        weights=str(user_case.weights),
        data=str(loose),
        input_size=64,
        threads=1,
        thresholds={"agreement": 0.5, "sqnr_db": 15.0},
    )
    case = CaseRequest(MODEL, (BACKEND,), "a test", settings)
    runner = SharedRunner(tmp_path, workers=1)
    if reason := runner.backends()[BACKEND]:
        pytest.skip(str(reason))
    (accuracy,) = runner.judge(case, "accuracy").gates
    assert accuracy.verdict is Verdict.UNVERIFIED and "no labels" in accuracy.detail
    judged = runner.judge(case, "agreement")
    assert judged.gates[0].verdict is Verdict.PASS
    assert judged.metrics["float32_top1"] is None
    numbers = runner.reference(case).numbers
    assert numbers["int8_top1"] is None and numbers["agreement"] == judged.metrics["agreement"]
