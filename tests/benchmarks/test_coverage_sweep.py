"""The coverage sweep: what is measured, by which processes, and how much of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from helpers.sweep_results import VGG, Script, case, result
from torch import nn

from ptqbench.models.catalog import MODELS
from ptqbench.models.meta_init import initialised
from ptqbench.quantization.completion import complete_recipe
from ptqbench.recipes import RECIPES
from ptqbench.settings.thresholds import Thresholds

ROOT = Path(__file__).parents[2]


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
    found = complete_recipe(recipe, model, torch.zeros(1, 3, 64, 64))
    assert len(found.groups) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert all("<" not in name for group in found.groups for name in group)
