"""The coverage sweep: its plan, its record, what recipes may promise, and the document."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.cli.parser import build_parser
from ptqbench.evaluation.inventory import inventory
from ptqbench.evaluation.result import Report
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES
from ptqbench.recipes.measured import FILE, render
from ptqbench.recipes.toml_format import read
from ptqbench.settings.thresholds import Thresholds

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.coverage import __main__ as sweep  # noqa: E402
from benchmarks.coverage import document, plan, record, thresholds  # noqa: E402

CONTENT = json.loads((ROOT / "fixtures" / "coverage.json").read_text("utf-8"))


@pytest.fixture
def runs() -> dict[str, Any]:
    return deepcopy(record.stored_runs(CONTENT))


@pytest.fixture
def vgg(runs: dict[str, Any]) -> dict[str, Any]:
    return {**runs["native"]["models"]["vgg11"], "cases": runs["native"]["cases"]["vgg11"]}


def test_the_record_has_every_case_and_is_judged_by_the_recipes_that_ship(runs) -> None:
    first, *later = CONTENT["runs"].values()
    every = {(model, name) for model in MODELS.names() for name in plan.cases_of(model)}
    assert {(entry["model"], entry["case"]) for entry in first["cases"]} == every
    assert all((entry["model"], entry["case"]) in every for r in later for entry in r["cases"])
    assert json.loads(record.render(runs)) == CONTENT
    assert render(sweep.promises(runs)) == FILE.read_text("utf-8")


def test_a_changed_recipe_drops_what_it_changes_and_is_never_green(runs, monkeypatch) -> None:
    changed = replace(RECIPES.get("vgg11"), spare_bit="activations")  # qnnpack has a bit to spare
    monkeypatch.setattr(plan, "RECIPES", {"vgg11": changed})
    native = {**runs["native"], "machine": {"instruction_set": "avx2"}}
    for case in native["cases"]["vgg11"].values():
        case["method"] = plan.method(RECIPES.get("vgg11"), case["backend"], "avx2")
    lines = {entry["case"]: entry for entry in record.entries(native, "vgg11")}
    assert (lines["x86"]["status"], lines["x86"]["verdict"]) == ("missing", "unverified")
    assert lines["qnnpack"]["status"] == "measured"


def test_the_document_and_the_list_show_the_record() -> None:
    text = document.body(CONTENT, {recipe.model: recipe.backend for recipe in RECIPES})
    assert text.strip() in (ROOT / "docs" / "coverage.md").read_text("utf-8")
    matrix = {(entry.model, entry.backend): entry for entry in inventory().matrix}
    assert set(matrix) == {(m, b) for m in MODELS.names() for b in BACKENDS.names()}
    for (model, backend), entry in matrix.items():
        assert entry.unsupported == RECIPES.get(model).unsupported.get(backend)
        if BACKENDS.get(backend).runtime != "torch":  # the record is of torch's engines
            assert not entry.measured
            continue
        assert entry.measured and all("verdict" in line for line in entry.measured)


def test_a_speedup_is_promised_with_a_margin_and_noise_taken_off(vgg) -> None:
    for case in vgg["cases"].values():
        case["intervals"] |= {"speedup": [1.9, 2.1], "noise": [0.99, 1.01]}
    promised = thresholds.measured_of([vgg])
    assert promised.speedup == {"avx512_vnni": 1.61}  # 0.85 × 1.9, rounded down
    case = vgg["cases"][promised.backend]
    case["intervals"]["noise"] = [0.8, 1.1]
    assert thresholds.measured_of([vgg]).speedup == {"avx512_vnni": 1.29}
    case["intervals"]["speedup"] = [0.0, None]  # no upper end
    assert record.judged(case, Thresholds(speedup={"avx512_vnni": 1.5}))["speedup"] == "unverified"


@pytest.mark.parametrize(
    "bad",
    [
        {"metrics": {"sqnr_db": 5.0}},
        {"metrics": {"sqnr_db": None}},
        {"intervals": {"agreement": [0.5, 0.6]}},
        {"intervals": {"accuracy": [0.6, 0.8]}},
        {"gates": {"saturation": "fail"}},
    ],
)
def test_a_collapse_never_becomes_green(vgg, bad: dict[str, dict[str, Any]]) -> None:
    for case in vgg["cases"].values():
        for field, values in bad.items():
            case[field] |= values
    promised = thresholds.measured_of([vgg])
    assert (promised.backend, promised.speedup, promised.probe) == (None, {}, {})


def test_a_job_is_a_command_whose_result_becomes_a_line(tmp_path, monkeypatch, runs) -> None:
    """A real run of the smallest case: command, result file, record."""
    monkeypatch.setattr(sweep, "STORED", tmp_path)
    job = plan.job("squeezenet1_1", "onednn")
    argv = sweep.command(replace(job, images=50, weights="fixture"), "native", 600)
    args = build_parser().parse_args(argv[3:])
    assert args.isolate and args.time_limit == 600 and args.backend == ["onednn"]
    opened = read(Path(args.recipe[0]))
    assert opened.hash == job.recipe.hash and opened.thresholds == Thresholds()
    monkeypatch.setattr(sweep, "command", lambda *_: [*argv, "--input-size", "64", "--quiet"])
    monkeypatch.setattr(sys, "argv", ["coverage", "--models", "squeezenet1_1", "--case", "onednn"])
    assert sweep.main() == 0
    (path,) = tmp_path.glob("native/*.json")
    report = Report.from_dict(json.loads(path.read_text("utf-8")))
    added: dict[str, Any] = {}
    record.add_report(added, "native", report, "onednn")
    entries = record.entries(added["native"], "squeezenet1_1")
    (line,) = (entry for entry in entries if entry["case"] == "onednn")
    before = runs["native"]["cases"]["squeezenet1_1"]["onednn"]
    assert set(before) <= set(line) and line["evaluation_images"] == 50
    gates = report.cases[0].judged_by(RECIPES.get("squeezenet1_1").thresholds).gates
    assert line["gates"] == {gate.name: gate.verdict.value for gate in gates}
