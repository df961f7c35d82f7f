"""The sweep over the whole matrix: its arithmetic, its record and what is written of it."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from ptqbench.backends.engine import BACKENDS
from ptqbench.models.skeleton import initialised
from ptqbench.models.zoo import MODELS
from ptqbench.quantization.derive import completed
from ptqbench.recipes import RECIPES, Thresholds
from ptqbench.recipes.families import FAMILIES, family
from ptqbench.reporting.inventory import inventory

ROOT = Path(__file__).parent.parent
Script = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.coverage.{name}")


def case(
    *,
    agreed: int = 396,
    kept: tuple[int, int, int, int] = (300, 2, 2, 96),
    sqnr_db: float = 30.0,
    speedup: tuple[float, float, float] = (2.0, 1.9, 2.1),
    backend: str = "x86",
    **changed: Any,
) -> dict[str, Any]:
    """A measured case of 400 images, every one with the same SQNR."""
    n, signal = 400, 100.0
    noise = signal / 10 ** (sqnr_db / 10)
    sums = [n, n * signal, n * noise, n * signal**2, n * noise**2, n * signal * noise]
    return {
        "status": "measured",
        "backend": backend,
        "flow": "fx",
        "accuracy": {
            "agreed": agreed,
            "top1": list(kept),
            "top5": [n, 0, 0, 0],
            "noise": sums,
            "classes": 16,
        },
        "size": [4000, 1000],
        "speed": {
            "speedup": list(speedup),
            "noise": [1.0, 0.99, 1.01],
            "float32_ms": 20.0,
            "int8_ms": 10.0,
            "pairs": 20,
            "threads": 2,
        },
        "instruction_set": "avx2",
        "kernels_for": ["neon"] if backend == "qnnpack" else ["avx2"],
        "fused": [20, 20],
        "int8_share_of_macs": 0.99,
        "calibration_images": 256,
        "gates": dict.fromkeys(("fusion", "conversion", "fidelity", "saturation"), "pass"),
        "details": {},
        **changed,
    }


def result(model: str = "vgg11", **cases: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "key": "k",
        "method": "m",
        "weights": "probe",
        "parameters": 1_000_000,
        "macs": 2_000_000_000,
        "evaluation_side": 64,
        "evaluation_images": 400,
        "input_shape": [1, 3, 224, 224],
        "fused_groups": 20,
        "int8_modules": 21,
        "machine": {"cpu": "A", "instruction_set": "avx2", "physical_cores": 2},
        "cases": cases,
    }


VGG = RECIPES.get("vgg11")


def test_the_fastest_backend_that_passes_is_recommended_with_a_margin(script: Script) -> None:
    found = script("thresholds").measured_of(
        VGG,
        {
            "avx2": result(
                x86=case(),
                fbgemm=case(backend="fbgemm", speedup=(9.0, 8.0, 10.0), agreed=100),
                onednn=case(backend="onednn", speedup=(3.0, 2.5, 3.5)),
                qnnpack=case(backend="qnnpack", speedup=(9.0, 8.0, 10.0), size=[3000, 1000]),
            )
        },
    )
    assert found.backend == "onednn"
    assert found.speedup == {"avx2": 2.12}  # 0.85 × 2.5, rounded down
    assert found.size_ratio == 2.91  # 0.97 × 3
    assert (found.fused_groups, found.int8_modules) == (20, 21)
    assert found.unsupported == {}


def test_noise_is_taken_off_a_promised_speedup(script: Script) -> None:
    noisy = case()
    noisy["speed"]["noise"] = [1.0, 0.8, 1.1]
    found = script("thresholds").measured_of(VGG, {"avx2": result(x86=noisy)})
    assert found.speedup == {"avx2": 1.29}  # 0.85 × 1.9 × 0.8
    gates = script("records").judge_again(noisy, Thresholds(speedup=found.speedup), [1, 3, 8, 8])
    assert {gate.name: gate.verdict.value for gate in gates}["speedup"] == "pass"


def test_a_speedup_below_one_stays_what_it_is(script: Script) -> None:
    slow = {"avx2": result(x86=case(speedup=(0.9, 0.8, 1.0)))}
    assert script("thresholds").measured_of(VGG, slow).speedup == {"avx2": 0.68}


def test_each_instruction_set_has_its_own_speedup_and_eager_mode_counts(script: Script) -> None:
    results = {
        "avx2": result(x86=case(), eager=case(speedup=(1.5, 1.4, 1.6))),
        "native": result(x86=case(instruction_set="amx", kernels_for=["amx"])),
    }
    assert script("thresholds").measured_of(VGG, results).speedup == {"avx2": 1.19, "amx": 1.61}


def test_a_later_run_recommends_where_the_first_has_no_time(script: Script) -> None:
    untimed = case()
    del untimed["speed"]
    later = result(x86=case(), onednn=case(backend="onednn", speedup=(3.0, 2.5, 3.5)))
    found = script("thresholds").measured_of(VGG, {"native": result(x86=untimed), "avx2": later})
    assert (found.backend, found.speedup) == ("onednn", {"avx2": 2.12})


def test_probe_thresholds_follow_the_results_with_the_most_images(script: Script) -> None:
    module = script("thresholds")
    few = {**result(x86=case(agreed=330)), "evaluation_images": 32}
    found = module.measured_of(VGG, {"native": few, "avx2": result(x86=case(agreed=368))})
    assert found.probe == module.probe_thresholds([case(agreed=368)])


def test_probe_thresholds_are_set_where_the_general_ones_are_missed(script: Script) -> None:
    module = script("thresholds")
    assert module.probe_thresholds([case(kept=(400, 0, 0, 0), agreed=400)]) == {}
    found = module.probe_thresholds([case(), case(agreed=368, sqnr_db=17.26)])
    # Wilson's lower limit for 368 of 400 is 0.889; equal SQNRs leave an interval without length.
    assert found["agreement"] == 0.87
    assert found["sqnr_db"] == 16.2
    assert 0.95 < found["accuracy"] < 0.99
    again = Thresholds().changed(found)
    gates = script("records").judge_again(case(agreed=368, sqnr_db=17.26), again, [1, 3, 8, 8])
    verdicts = {gate.name: gate.verdict.value for gate in gates}
    assert verdicts.pop("speedup") == "unverified"  # no threshold is asked for here
    assert set(verdicts.values()) == {"pass"}


@pytest.mark.parametrize(
    "bad",
    [
        {"sqnr_db": 5.0},
        {"agreed": 200},
        {"kept": (200, 100, 0, 100)},
        {"sqnr_db": -3.0, "agreed": 40, "kept": (20, 280, 5, 95)},
    ],
)
def test_a_collapse_never_becomes_green(script: Script, bad: dict[str, Any]) -> None:
    module = script("thresholds")
    results = {"avx2": result(x86=case(**bad), onednn=case(**bad, backend="onednn"))}
    found = module.measured_of(VGG, results)
    assert found.backend is None and found.speedup == {} and found.probe == {}
    beside = module.measured_of(VGG, {"avx2": result(x86=case(**bad), fbgemm=case())})
    assert beside.probe == module.probe_thresholds([case()])
    assert module.collapsed(script("records").accuracy_of(case(**bad)))


def test_a_case_that_fails_a_gate_without_threshold_is_not_learnt_from(script: Script) -> None:
    module = script("thresholds")
    wrong = case(agreed=330)
    wrong["gates"] = {**wrong["gates"], "saturation": "fail"}
    assert not module.sound(wrong)
    assert module.measured_of(VGG, {"avx2": result(x86=wrong)}).backend is None


def test_the_record_gives_the_thresholds_that_it_was_judged_by(script: Script) -> None:
    module, keys = script("thresholds"), script("keys")
    slow = case(backend="fbgemm", agreed=330, speedup=(1.1, 1.0, 1.2))
    results = {"avx2": {"vgg11": result(x86=case(agreed=368), fbgemm=slow)}}
    found = module.measured_of(VGG, {"avx2": results["avx2"]["vgg11"]})
    recipe = replace(VGG, thresholds=Thresholds(speedup=found.speedup), probe=found.probe)
    record = script("results").record({"vgg11": recipe}, results, {"vgg11": ["x86", "fbgemm"]})
    by_name = {entry["case"]: entry for entry in record["runs"]["avx2"]["cases"]}
    assert by_name["fbgemm"]["gates"]["speedup"] == "fail"
    again = script("results").results_of(record)["avx2"]["vgg11"]
    assert again["method"] == keys.method(recipe)
    assert module.measured_of(VGG, {"avx2": again}) == found


def test_logits_that_are_not_numbers_are_a_collapse(script: Script) -> None:
    broken = case()
    broken["accuracy"]["noise"] = [400, 4e4, None, 0.0, 0.0, 0.0]
    accuracy = script("records").accuracy_of(broken)
    assert accuracy.sqnr_db == -math.inf
    assert script("thresholds").collapsed(accuracy)


def test_what_torch_refuses_is_why_a_backend_is_not_supported(script: Script) -> None:
    said = {"status": "refused", "reason": "scale ratio must be small"}
    lost = {"status": "died", "reason": "the process was killed"}
    found = script("thresholds").measured_of(
        VGG, {"avx2": result(x86=case(), qnnpack=said, onednn=lost)}
    )
    assert found.unsupported == {"qnnpack": "scale ratio must be small"}


def test_a_stored_result_is_measured_again_only_if_something_changed(
    script: Script, tmp_path: Path
) -> None:
    sweep, keys = script("sweep"), script("keys")
    key = keys.key(VGG, "probe", "code", "native")
    job = sweep.Job("vgg11", "probe", ("x86", "fbgemm"), key, "native")
    assert sweep.missing(job, {}, tmp_path) == ("x86", "fbgemm")
    stored = {**result(x86=case()), "key": key}
    assert sweep.missing(job, stored, tmp_path) == ("fbgemm",)
    assert sweep.missing(job, stored, tmp_path, again=True) == ("x86", "fbgemm")
    del stored["cases"]["x86"]["speed"]
    assert sweep.missing(job, stored, tmp_path) == ("x86", "fbgemm")
    artifact = sweep.artifacts_of(tmp_path, "vgg11") / "x86.pt"
    artifact.parent.mkdir(parents=True)
    artifact.touch()
    assert sweep.missing(job, stored, tmp_path) == ("fbgemm",)
    assert sweep.untimed(stored) == ("x86",)
    eager = sweep.Job("vgg11", "probe", ("eager",), key, "native", recommended="onednn")
    assert sweep.missing(eager, {**result(eager=case()), "key": key}, tmp_path) == ("eager",)
    there = {**result(eager=case(backend="onednn")), "key": key}
    assert sweep.missing(eager, there, tmp_path) == ()

    changed = keys.replace(VGG, keep_float=("classifier",))
    judged = keys.replace(VGG, thresholds=Thresholds(agreement=0.5), probe={"agreement": 0.4})
    assert keys.key(changed, "probe", "code", "native") != key
    assert keys.key(judged, "probe", "code", "native") == key
    assert keys.key(VGG, "fixture", "code", "native") != key
    assert keys.key(VGG, "probe", "other", "native") != key
    assert keys.key(VGG, "probe", "code", "avx2") != key


CHILD = """
import json, os, pathlib, signal, sys
args = sys.argv
journal = pathlib.Path(args[args.index("--journal") + 1])
cases = args[args.index("--cases") + 1:]
cases = cases[:next((i for i, a in enumerate(cases) if a.startswith("--")), len(cases))]
with journal.open("a") as file:
    def say(kind, **record): print(json.dumps({"kind": kind, **record}), file=file, flush=True)
    say("model", macs=5, input_shape=[1, 3, 8, 8])
    for name in cases:
        say("begin", case=name)
        if name == "fbgemm":
            print('{"kind": "ca', end="", file=file, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        say("case", case=name, status="refused", reason="because")
"""


def test_a_child_that_dies_takes_one_case_with_it(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = script("sweep")
    program = tmp_path / "child.py"
    program.write_text(CHILD)
    how = sweep.Starting(build=(sys.executable, str(program)))
    job = sweep.Job("vgg11", "probe", ("x86", "fbgemm", "onednn"), "key", "native")
    found = sweep.build(job, tmp_path / "results", how=how)
    assert {name: entry["status"] for name, entry in found["cases"].items()} == {
        "x86": "refused",
        "fbgemm": "died",
        "onednn": "refused",
    }
    assert "memory" in found["cases"]["fbgemm"]["reason"]
    assert sweep.stored(tmp_path / "results", "vgg11") == found
    assert sweep.missing(job, found, tmp_path / "results") == ()


def test_a_child_that_takes_too_long_is_ended(script: Script, tmp_path: Path) -> None:
    sweep = script("sweep")
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert sweep.child(command, {}, tmp_path / "log", 0.2) == "did not end within 0.2 s"
    assert sweep.child([sys.executable, "-c", ""], {}, tmp_path / "log", 20) == ""


def test_a_child_that_cannot_begin_loses_all_cases_with_its_reason(script: Script) -> None:
    found = [{"kind": "failed", "reason": "no weights"}]
    merged, settled = script("sweep").merged({"cases": {}}, found, ["x86", "onednn"], "code 1")
    assert settled == ["x86", "onednn"]
    assert {entry["reason"] for entry in merged["cases"].values()} == {"no weights"}


def test_an_artifact_that_cannot_be_timed_keeps_its_other_numbers(script: Script) -> None:
    untimed = case()
    del untimed["speed"]
    before = {"cases": {"x86": untimed}}
    merged, _ = script("sweep").merged(before, [{"kind": "begin", "case": "x86"}], ["x86"], "died")
    assert merged["cases"]["x86"]["status"] == "measured"
    gates = script("records").judge_again(merged["cases"]["x86"], Thresholds(), [1, 3, 8, 8])
    speed = next(gate for gate in gates if gate.name == "speedup")
    assert speed.verdict.value == "unverified" and "the process died" in speed.detail


def test_costly_models_get_fewer_images_and_pairs(script: Script) -> None:
    module = script("plan")
    cheap, middle, giant = (module.plan(giga * 1e9, 224) for giga in (0.1, 4, 167))
    assert cheap.evaluation_images == 300 and cheap.calibration_images == 128
    assert middle.evaluation_images == middle.calibration_images == 50
    assert giant.evaluation_images == giant.calibration_images == 12
    assert module.plan(1.5e8, 64, trained=True).evaluation_images == 2000
    assert module.plan(1e9, 600).batch_size < cheap.batch_size == 50
    pairs = [module.timing_plan(giga * 1e9).pairs for giga in (1, 20, 40, 167)]
    assert pairs == [20, 10, 6, 4]


def test_eager_mode_finds_groups_of_its_own(script: Script) -> None:
    keys = script("keys")
    recipe = keys.eager(keys.open_recipe(RECIPES.get("googlenet")))
    assert (recipe.flow, recipe.fusion, recipe.int8_modules) == ("eager", None, None)
    spec = MODELS.get("googlenet")
    model = initialised(spec.factory, 16).eval()
    found = completed(recipe, model, torch.zeros(1, 3, 64, 64))
    assert len(found.groups) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert all("<" not in name for group in found.groups for name in group)


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
    assert results["avx2"]["vgg11"]["method"] == script("keys").method(VGG)
    expected = {"vgg11": ("x86", "onednn"), "alexnet": ("x86",)}
    recipes = {name: RECIPES.get(name) for name in expected}
    assert module.render(module.record(recipes, results, expected)) == module.render(content)


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
            assert entry["method"] == keys.method(carried_out), entry["model"]
            if entry["status"] != "measured":
                continue
            model = run["models"][entry["model"]]
            asked = recipe.promised(model["weights"])
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
