"""Shared work behind the suite: made once, looked up afterwards, the same numbers."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ptqbench.backends import cpu as isa
from ptqbench.backends.torch_engines.engine import TorchBackend
from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.errors import UserError
from ptqbench.evaluation import case_measurements as evaluation
from ptqbench.evaluation.case_measurements import MEASUREMENTS
from ptqbench.gates import gates_in_order
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.accuracy import measure_accuracy
from ptqbench.measurement.artifact_inspection import INSPECTIONS
from ptqbench.models.catalog import MODELS
from ptqbench.settings.requests import CaseRequest
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.thresholds import Thresholds
from ptqbench.testing import shared_runner as cases
from ptqbench.testing.shared_cache import SharedFolder, SharedLogits
from ptqbench.testing.shared_runner import SharedRunner


class Images:
    """Ten images of random numbers; counts how often it is read."""

    name, classes, count, limit = "ten", ("a", "b", "c"), 6, 10
    labelled = True

    def __init__(self):
        self.pixels = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
        self.reads = 0

    def batches(self, start, stop, batch_size):
        self.reads += 1
        for first in range(start, stop, batch_size):
            last = min(first + batch_size, stop)
            yield self.pixels[first:last], torch.arange(first, last) % 3

    def content_hashes(self, start, stop):
        return iter(())


def shared(path, images, models=None):
    models = models or {"float32": lambda: torch.neg, "int8": lambda: torch.sign}
    return SharedLogits(SharedFolder(path), images, models, 4)


def test_looked_up_logits_measure_what_the_models_do(tmp_path):
    images = Images()
    direct = measure_accuracy(
        torch.neg, torch.sign, images, batch_size=3, stop_when=lambda _: False
    )
    replay = shared(tmp_path / "new", images)
    looked_up = measure_accuracy(
        replay.model("float32"),
        replay.model("int8"),
        replay,
        batch_size=3,
        stop_when=lambda _: False,
    )
    assert looked_up == direct and direct.n == 10


def test_a_second_worker_computes_nothing(tmp_path):
    list(shared(tmp_path, Images()).batches(0, 6, 4))

    def unwanted():
        raise AssertionError("computed again")

    images = Images()
    replay = shared(tmp_path, images, {"float32": unwanted, "int8": unwanted})
    positions, labels = next(replay.batches(0, 6, 6))
    assert torch.equal(replay.model("float32")(positions), -images.pixels[:6])
    assert labels.tolist() == [0, 1, 2, 0, 1, 2] and images.reads == 0


def test_a_failure_leaves_nothing_and_is_tried_again(tmp_path):
    folder = SharedFolder(tmp_path)

    def broken(path):
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        folder.once("file", broken)
    assert not (tmp_path / "file").exists()
    assert folder.once("file", lambda path: path.write_text("whole")).read_text() == "whole"
    assert folder.once("file", broken).read_text() == "whole"


def test_every_gate_needs_what_can_be_measured():
    needs = {gate.name: gate.measurement for gate in gates_in_order()}
    assert needs["agreement"] == "accuracy" and needs["speedup"] == "speed"
    assert set(needs.values()) <= {*MEASUREMENTS.names(), *INSPECTIONS}


def test_thresholds_are_merged_with_those_of_the_recipe():
    recipe = Thresholds(speedup={"avx2": 1.5, "neon": 2.0})
    changed = recipe.replaced({"accuracy": 0.9, "speedup": {"amx": 3.0}})
    assert changed.accuracy == 0.9 and changed.size_ratio == recipe.size_ratio
    assert changed.speedup == {"avx2": 1.5, "neon": 2.0, "amx": 3.0}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A small model with random weights on a handful of pictures of 32 pixels."""
    root = tmp_path_factory.mktemp("case")
    torch.manual_seed(0)
    save_file(MODELS.get("squeezenet1_1").factory(2).state_dict(), root / "w.safetensors")
    (root / "w.json").write_text(json.dumps({"resize": 32, "crop": 32, "classes": ["a", "b"]}))
    noise = torch.Generator().manual_seed(0)
    for split, each in (("train", 4), ("val", 6)):
        for name in ("a", "b"):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(each):
                pixels = torch.randint(0, 256, (32, 32, 3), generator=noise, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
    settings = RunSettings(weights=str(root / "w.safetensors"), data=str(root / "data"), limit=32)
    return CaseRequest("squeezenet1_1", ("onednn",), "a test", settings)


def test_artifacts_and_measurements_are_made_once_per_session(tmp_path, case, monkeypatch):
    first = SharedRunner(tmp_path, workers=2)
    if reason := first.backends()["onednn"]:
        pytest.skip(reason)
    size = first.judge(case, "size")
    agreement = first.judge(case, "agreement")
    assert size.gates[0].verdict is Verdict.PASS and size.metrics["size_ratio"] > 3
    assert agreement.gates[0].n == 12

    def unwanted(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(cases, "build_int8", unwanted)
    second = SharedRunner(tmp_path, workers=2)
    assert second.judge(case, "agreement").gates == agreement.gates
    speedup = second.judge(case, "speedup").gates[0]
    assert speedup.verdict is Verdict.UNVERIFIED and "2 pytest-xdist workers" in speedup.detail
    numbers = second.reference(case).numbers
    assert numbers["int8_operations"] == 26 and numbers["float32_operations"] == 0
    assert numbers["calibration_images"] == 8


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_the_session_folder_is_private_whoever_needs_it_first(tmp_path, case, monkeypatch):
    def opened(recipe, settings, *_):
        Path(settings.artifacts).mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(cases, "open_subject", opened)
    with pytest.raises(KeyboardInterrupt):
        SharedRunner(tmp_path / "session", workers=1).reference(case)
    assert stat.S_IMODE((tmp_path / "session").stat().st_mode) == 0o700


def test_a_backend_that_cannot_run_here_is_unverified(tmp_path, case, monkeypatch):
    monkeypatch.setattr(TorchBackend, "availability", lambda self: "no such engine")
    runner = SharedRunner(tmp_path, workers=1)
    assert {
        runner.judge(case, gate).gates[0].verdict
        for gate in [gate.name for gate in gates_in_order()]
    } == {Verdict.UNVERIFIED}
    with pytest.raises(UserError, match="no such engine"):
        runner.reference(case)


def test_the_machine_is_told_with_what_kernels_are_chosen_by(tmp_path):
    facts = SharedRunner(tmp_path, workers=1).machine()
    assert {"cpu", "flags", "instruction_set", "physical_cores", "engines", "torch"} <= set(facts)
    assert set(facts["flags"]) <= isa.cpu_flags()
    assert (facts["instruction_set"] != "avx2") or "avx2" in facts["flags"]


def test_the_process_is_left_as_it_was(tmp_path, case):
    runner = SharedRunner(tmp_path, workers=2)
    if reason := runner.backends()["onednn"]:
        pytest.skip(reason)
    threads, engine = torch.get_num_threads(), torch.backends.quantized.engine
    others = [name for name, reason in runner.backends().items() if not reason and name != "onednn"]
    with engine_set(others[0]):
        runner.judge(case, "agreement")
        assert torch.backends.quantized.engine == others[0]
    assert (torch.get_num_threads(), torch.backends.quantized.engine) == (threads, engine)


def test_the_threads_of_the_settings_hold_for_every_measurement(tmp_path, case, monkeypatch):
    runner = SharedRunner(tmp_path, workers=1)
    if reason := runner.backends()["onednn"]:
        pytest.skip(reason)
    threads_used = []
    measure = evaluation.measure_accuracy

    def spy(*args, **options):
        threads_used.append(torch.get_num_threads())
        return measure(*args, **options)

    monkeypatch.setattr(evaluation, "measure_accuracy", spy)
    monkeypatch.setattr(cases, "physical_cores", lambda: 8)
    for threads, expected in ((1, 1), (3, 3)):
        runner.judge(replace(case, settings=replace(case.settings, threads=threads)), "agreement")
        assert threads_used.pop() == expected
    crowded = SharedRunner(tmp_path / "crowded", workers=4)
    crowded.judge(replace(case, settings=replace(case.settings, threads=3)), "agreement")
    assert threads_used == [2]  # eight cores for four workers
