"""The record of the coverage sweep, and what is written of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_results import VGG, Script, case, result

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.evaluation.inventory import inventory
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES
from ptqbench.recipes.family import FAMILIES, family
from ptqbench.settings.thresholds import Thresholds

ROOT = Path(__file__).parents[2]


def small_record(script: Script) -> dict[str, Any]:
    cases = {
        "x86": case(),
        "fbgemm": case(backend="fbgemm", agreed=200, sqnr_db=4.0),
        "qnnpack": {"status": "refused", "reason": "scale ratio must be small"},
    }
    expected = {"vgg11": ("x86", "onednn"), "alexnet": ("x86",)}
    recipes = {name: RECIPES.get(name) for name in expected}
    results = {"avx2": {"vgg11": result(**cases)}}
    return script("results").record(recipes, results, expected)


def test_the_record_judges_by_what_recipes_ask_for_now(script: Script) -> None:
    content = small_record(script)
    entries = content["runs"]["avx2"]["cases"]
    by_name = {entry["case"]: entry for entry in entries if entry["model"] == "vgg11"}
    assert by_name["fbgemm"]["gates"]["agreement"] == "fail"
    assert by_name["fbgemm"]["verdict"] == "fail"
    assert by_name["qnnpack"]["verdict"] == "unverified"
    assert {entry["recipe"] for entry in by_name.values()} == {VGG.hash}
    text = script("results").render(content)
    assert json.loads(text) == json.loads(json.dumps(content))


def test_what_was_not_measured_is_in_the_record_and_never_green(script: Script) -> None:
    content = small_record(script)
    entries = {(e["model"], e["case"]): e for e in content["runs"]["avx2"]["cases"]}
    for place in (("vgg11", "onednn"), ("alexnet", "x86")):
        assert (entries[place]["status"], entries[place]["verdict"]) == ("missing", "unverified")
    text = script("document").document(content, {})
    assert "unverified: not measured yet" in text


def test_a_record_gives_the_results_back_that_it_was_made_of(script: Script) -> None:
    module, content = script("results"), small_record(script)
    results = module.results_of(json.loads(module.render(content)))
    assert set(results["avx2"]) == {"vgg11"}
    expected = {"vgg11": ("x86", "onednn"), "alexnet": ("x86",)}
    recipes = {name: RECIPES.get(name) for name in expected}
    assert module.render(module.record(recipes, results, expected)) == module.render(content)


def test_a_changed_recipe_drops_the_cases_that_it_changes(script: Script) -> None:
    module = script("results")
    cases = {"x86": case(), "qnnpack": case(backend="qnnpack")}
    recipes = {"vgg11": VGG}
    content = module.record(recipes, {"avx2": {"vgg11": result(**cases)}}, {"vgg11": [*cases]})
    stored = module.results_of(content)["avx2"]["vgg11"]
    assert module.of_today(VGG, stored) == stored
    other_side = replace(VGG, spare_bit="activations")  # qnnpack has a bit to spare
    assert set(module.of_today(other_side, stored)["cases"]) == {"qnnpack"}
    assert module.of_today(replace(VGG, observer="minmax"), stored)["cases"] == {}


def test_results_of_two_cpus_do_not_become_one_run(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, sweep = script("__main__"), script("sweep")
    monkeypatch.setattr(command, "RESULTS", tmp_path / "none")
    monkeypatch.setattr(command, "_place", str)
    monkeypatch.setattr(sweep, "RESULTS", tmp_path)
    (tmp_path / "native").mkdir()
    for model, instructions in (("vgg11", "avx2"), ("vgg13", "amx")):
        found = {**result(model, x86=case()), "method": script("keys").method(RECIPES.get(model))}
        found["machine"] = {**found["machine"], "instruction_set": instructions}
        (tmp_path / "native" / f"{model}.json").write_text(json.dumps(found))
        if model == "vgg11":
            assert set(command.all_results()) == {"native"}
    with pytest.raises(SystemExit, match="amx and avx2"):
        command.all_results()


@pytest.mark.parametrize(
    ("flags", "told"), [(["avx2", "fma"], False), (["avx2", "fma", "avx512f"], True)]
)
def test_a_cpu_without_newer_instructions_is_not_called_restricted(
    script: Script, flags: list[str], told: bool
) -> None:
    measured = result(x86=case())
    measured["machine"] = {**measured["machine"], "flags": flags}
    content = script("results").record(
        {"vgg11": VGG}, {"avx2": {"vgg11": measured}}, {"vgg11": ["x86"]}
    )
    text = script("document").document(content, {"vgg11": "x86"})
    assert ("told to leave alone" in text) == told == bool(content["runs"]["avx2"]["environment"])


def test_the_document_counts_a_model_that_passes_in_any_run(script: Script) -> None:
    untimed = case()
    del untimed["speed"]
    results = {"native": {"vgg11": result(x86=untimed)}, "avx2": {"vgg11": result(x86=case())}}
    recipe = replace(VGG, thresholds=Thresholds(speedup={"avx2": 1.5}), probe={"accuracy": 0.9})
    content = script("results").record({"vgg11": recipe}, results, {"vgg11": ["x86"]})
    text = script("document").document(content, {"vgg11": "x86"})
    assert "**1 of 1 models pass every gate on their recommended backend**" in text


def test_the_document_shows_numbers_verdicts_and_reasons(script: Script) -> None:
    text = script("document").document(small_record(script), {"vgg11": "x86"})
    lines = [line for line in text.splitlines() if line.startswith("| vgg11 ")]
    rows = [next(line for line in lines if f"| {b}" in line) for b in ("**x86", "fbgemm", "qnn")]
    assert rows[0].startswith(
        "| vgg11 | **x86** | probe | 20/20 | 99.0 | 99.0 (97–100) | 30.0 dB | 4.00× | "
        "2.00× (1.90–2.10) |"
    )
    assert "fail: agreement" in rows[1] or "fail: accuracy, agreement" in rows[1]
    assert rows[2].endswith("unverified: torch refuses |")
    assert "- vgg11 on qnnpack: torch refuses: `scale ratio must be small`" in text
    assert "400 of 64×64" in text


def test_every_model_belongs_to_a_family() -> None:
    families = {name: family(name) for name in MODELS.names()}
    assert set(families.values()) == set(FAMILIES)
    assert families["resnext50_32x4d"] == families["wide_resnet50_2"] == families["resnet18"]
    assert family("my_own") == "Other"


# What is committed.

COMMITTED = ROOT / "fixtures" / "coverage.json"


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(COMMITTED.read_text("utf-8"))
    return content


def test_the_record_has_every_model_on_every_backend(committed: dict[str, Any]) -> None:
    first, *later = committed["runs"].values()
    quantizable = {m.name for m in MODELS if m.quantizable and RECIPES.get(m.name).flow == "fx"}
    every = {
        *((model, backend) for model in MODELS.names() for backend in BACKENDS.names()),
        *((model, "eager") for model in quantizable),
    }
    assert {(entry["model"], entry["case"]) for entry in first["cases"]} == every
    for run in later:
        assert {(entry["model"], entry["case"]) for entry in run["cases"]} <= every


def test_the_record_belongs_to_the_recipes_that_ship(
    script: Script, committed: dict[str, Any]
) -> None:
    keys, results = script("keys"), script("results")
    for run in committed["runs"].values():
        for entry in run["cases"]:
            recipe = RECIPES.get(entry["model"])
            carried_out = keys.eager(recipe) if entry["case"] == "eager" else recipe
            assert entry["recipe"] == carried_out.hash, entry["model"]
            instructions = results.instructions_of(entry, run)
            assert entry["method"] == keys.method(carried_out, entry["backend"], instructions)
            if entry["status"] != "measured":
                continue
            model = run["models"][entry["model"]]
            asked = recipe.thresholds_for(model["weights"])
            gates = script("records").judge_again(entry, asked, model["input_shape"])
            assert {gate.name: gate.verdict.value for gate in gates} == entry["gates"]
            assert results.numbers(entry)["metrics"] == entry["metrics"]


def test_reasons_in_recipes_are_those_of_the_record(committed: dict[str, Any]) -> None:
    run = next(iter(committed["runs"].values()))
    refused = {
        (entry["model"], entry["case"]): entry["reason"]
        for entry in run["cases"]
        if entry["status"] == "refused" and entry["case"] != "eager"
    }
    promised = {
        (recipe.model, backend): reason
        for recipe in RECIPES
        for backend, reason in recipe.unsupported.items()
    }
    assert promised == refused


def test_the_document_is_what_the_command_makes(script: Script, committed: dict[str, Any]) -> None:
    recommended = {recipe.model: recipe.backend for recipe in RECIPES}
    made = script("document").document(committed, recommended)
    assert (ROOT / "docs" / "coverage.md").read_text("utf-8") == made


def test_the_list_tells_the_whole_matrix() -> None:
    found = inventory()
    matrix = {(entry.model, entry.backend): entry for entry in found.matrix}
    assert set(matrix) == {(m, b) for m in MODELS.names() for b in BACKENDS.names()}
    for (model, backend), entry in matrix.items():
        recipe = RECIPES.get(model)
        assert entry.recommended == (recipe.backend == backend)
        assert entry.unsupported == recipe.unsupported.get(backend)
        assert entry.measured and all("verdict" in record for record in entry.measured)
    sources = {model.name: model.sources for model in found.models}
    assert sources["resnet18"] == ("fixture", "probe", "IMAGENET1K_V1")
    assert "IMAGENET1K_V2" in sources["resnet50"] and "fixture" not in sources["resnet50"]
