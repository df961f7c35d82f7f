"""Probe weights through every door: when they are the default, what is said, which thresholds."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from helpers.reports import MACHINE

from ptqbench import api
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.cli import main
from ptqbench.cli.parser import build_parser
from ptqbench.cli.setting_options import load_settings
from ptqbench.errors import UserError
from ptqbench.evaluation.case import unavailable_case
from ptqbench.evaluation.result import CaseResult, Prediction, Report
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import Verdict
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.reporting import console
from ptqbench.reporting.json_report import schema, to_json
from ptqbench.reporting.markdown import to_markdown
from ptqbench.reporting.prediction_table import prediction_view
from ptqbench.reporting.terminal import report_view
from ptqbench.settings.layers import RECIPE, RECIPE_PROBE, Layer, Settings
from ptqbench.settings.requests import case_requests
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.weights_specifier import default_weights
from ptqbench.weights import open_weights as opening
from ptqbench.weights.load import Weights

MODEL, SHIPPED = "mnasnet0_5", "resnet18"


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Heads of few images, and files of weights that go away."""
    monkeypatch.setattr(opening, "compute_probe", partial(opening.compute_probe, most_images=96))
    monkeypatch.setattr(opening.probe_cache, "path_of", lambda *_: tmp_path / "probe.safetensors")


@pytest.fixture
def promising(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe that asks for less under probe weights."""
    recipe = replace(
        RECIPES.get(MODEL), probe={"agreement": 0.5, "sqnr_db": 12.0, "accuracy_points": 3.0}
    )
    monkeypatch.setitem(RECIPES._entries, MODEL, recipe)
    return recipe


# The default


def test_models_without_shipped_weights_have_probe_ones() -> None:
    assert default_weights(SHIPPED) == "fixture" and default_weights(MODEL) == "probe"
    assert RunSettings().of(MODEL).weights == "probe"
    assert RunSettings().of(SHIPPED).weights == "fixture"
    assert RunSettings(weights="imagenet").of(MODEL).weights == "imagenet"


def test_the_settings_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(CATALOG)
    assert (settings.value("weights", MODEL).value, settings.case(MODEL)[0].weights) == (
        "probe",
        "probe",
    )
    assert settings.value("weights", MODEL).origin == "default"
    assert settings.case(SHIPPED)[0].weights == "fixture"
    general = Settings(CATALOG, general=Layer("file", {"weights": "imagenet"}))
    assert general.value("weights", MODEL).value == "imagenet"


@pytest.mark.parametrize("command", ["run", "gate"])
def test_the_command_line_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = [command, MODEL] if command == "run" else [command, "--model", MODEL, "--artifact", "x"]
    parser = build_parser()
    for more, expected in (([], "probe"), (["--weights", "imagenet"], "imagenet")):
        args = parser.parse_args([*argv, *more])
        (request,) = case_requests(load_settings(args, [MODEL]))
        assert request.settings.weights == expected


def test_python_asks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[str | None] = []

    def record(spec: Any, source: str | None = None, *_: object, **__: object) -> Weights:
        sources.append(source)
        raise UserError("enough")

    monkeypatch.setattr(opening, "probe_weights", lambda spec, *_, **__: record(spec, "probe"))
    monkeypatch.setattr(opening, "load_weights", record)
    for model in (MODEL, SHIPPED):
        with pytest.raises(UserError, match="enough"):
            api.quantize(model)
        with pytest.raises(UserError, match="enough"):
            api.validate(model, "x86")
    assert sources == ["probe", "probe", "fixture", "fixture"]


def test_fixture_weights_that_there_are_not_name_the_probe() -> None:
    with pytest.raises(UserError, match=r"no fixture weights for mnasnet0_5.*`probe`"):
        opening.open_weights(MODELS.get(MODEL), "fixture")


def test_preprocessing_belongs_to_the_head() -> None:
    spec = MODELS.get(MODEL)
    with pytest.raises(UserError, match=r"resize and crop cannot be set.*64×64.*Remove them"):
        opening.open_weights(spec, "probe", {"resize": 32, "crop": 32, "mean": None})
    with pytest.raises(UserError, match=r"classes cannot be set.*Remove it"):
        opening.open_weights(spec, None, {"classes": ("a", "b")})


# What is said


def test_every_report_says_what_they_are(few_images: None) -> None:
    weights = opening.open_weights(MODELS.get(MODEL))
    assert weights.source == "probe"
    assert len(weights.classes or ()) == weights.num_classes == 16
    facts = {"engine": "x86", **weights.facts, "notes": weights.notes}
    gate = GateResult("size", Verdict.PASS, 3.9, 3.0, None, None, "Smaller.")
    case = CaseResult(MODEL, weights.source, "x86", "fixture", "ab", {}, (gate,), facts)
    report = Report(MACHINE, (case,))
    prediction = Prediction(MODEL, "probe", "x86", (("cat", 0.9),), (("cat", 0.8),), weights.notes)
    texts = {
        "terminal": console.render(report_view(report, 100), 100),
        "markdown": to_markdown(report),
        "json": to_json(report),
        "prediction": console.render(prediction_view(prediction, "a.png"), 100),
    }
    for door, text in texts.items():
        assert "not a trained classifier" in " ".join(text.split()), door
        assert "probe" in text, door
    content = json.loads(texts["json"])
    jsonschema.validate(content, schema())
    json_facts = content["cases"][0]["facts"]
    assert content["cases"][0]["weights"] == "probe"
    assert json_facts["weights_sha256"] == weights.sha256 and json_facts["probe_head_images"] == 96
    assert 0 < json_facts["probe_leave_one_out_top1"] <= 1 and json_facts["probe_seed"] == 0


# Thresholds


def test_thresholds_for_probe_weights_hold_under_them_alone(promising: Recipe) -> None:
    under = promising.thresholds_for("probe")
    assert (under.agreement, under.sqnr_db) == (0.5, 12.0)
    assert under.top1_policy == ("accuracy_points", 3.0)
    assert under.size_ratio == promising.thresholds.size_ratio
    for source in ("fixture", "imagenet", "mine.safetensors"):
        assert promising.thresholds_for(source) == promising.thresholds


def test_the_settings_show_them_and_whoever_sets_one_wins(promising: Recipe) -> None:
    settings = Settings(CATALOG)
    value = settings.value("thresholds.agreement", MODEL)
    assert (value.value, value.origin) == (0.5, RECIPE_PROBE)
    assert settings.value("thresholds.size_ratio", MODEL).origin == RECIPE
    assert settings.value("thresholds.accuracy", MODEL).value is None
    assert settings.case(MODEL)[0].thresholds == {}  # what a recipe says is not set by anyone
    options = Settings(CATALOG, command_line=Layer("--threshold", {"thresholds.agreement": 0.7}))
    assert options.value("thresholds.agreement", MODEL).origin == "--threshold"
    thresholds = promising.thresholds_for("probe").replaced(options.case(MODEL)[0].thresholds)
    assert (thresholds.agreement, thresholds.sqnr_db) == (0.7, 12.0)
    named = Settings(CATALOG, command_line=Layer("--weights", {"weights": "imagenet"}))
    assert named.value("thresholds.agreement", MODEL).value == promising.thresholds.agreement


def test_a_case_that_cannot_run_shows_them_too(promising: Recipe) -> None:
    backend = BACKENDS.get("x86")
    for weights, expected in (("probe", 0.5), ("imagenet", promising.thresholds.agreement)):
        case = unavailable_case(promising, backend, "missing", RunSettings(weights=weights))
        (gate,) = (gate for gate in case.gates if gate.name == "agreement")
        assert gate.verdict is Verdict.UNVERIFIED
        assert case.evidence is not None and case.evidence.thresholds.agreement == expected


@pytest.mark.slow
def test_a_run_from_name_to_report(
    few_images: None, promising: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["run", MODEL, "--backend", "x86", "--limit", "96", "--input-size", "64"]
    main([*argv, "--threads", "1", "--threshold", "sqnr_db=5", "--json", "out.json"])
    (case,) = json.loads(Path("out.json").read_text("utf-8"))["cases"]
    assert case["weights"] == "probe" and "not a trained classifier" in str(case["facts"]["notes"])
    thresholds = {gate["name"]: gate["threshold"] for gate in case["gates"]}
    assert thresholds["agreement"] == 0.5
    assert case["metrics"]["float32_top1"] > 1 / 16
