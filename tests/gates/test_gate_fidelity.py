"""The fidelity gate on clean models and on planted defects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.small_artifacts import CLEAN, Built, build, judge, shipped, small

from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.gates import GateResult, Verdict
from ptqbench.measurement.fidelity import measure_fidelity
from ptqbench.measurement.replay import ReplayProcess


def gate(built: Built, measured: Model | None = None, recorded: str | None = None) -> GateResult:
    name = built.artifact.info.backend if recorded is None else recorded
    fidelity = measure_fidelity(
        built.artifact.path,
        measured or built.artifact.load(),
        built.images[:2],
        backend=built.backend,
        recorded=BACKENDS.get(name) if name else None,
    )
    return judge("fidelity", fidelity=fidelity)


@pytest.mark.parametrize(("name", "backend", "flow"), CLEAN)
def test_passes_clean_models(name: str, backend: str, flow: str) -> None:
    result = gate(shipped(name, backend, flow))
    assert result.verdict is Verdict.PASS, result.detail
    assert (result.observed, result.n) == (1.0, 2)


def test_catches_a_file_that_records_another_engine(tmp_path: Path) -> None:
    result = gate(build(small(), tmp_path / "a.pt"), recorded="qnnpack")
    assert result.verdict is Verdict.FAIL
    assert "measured under fbgemm, but the file records qnnpack" in result.detail


def test_catches_a_file_that_holds_something_else(tmp_path: Path) -> None:
    measured = build(small(), tmp_path / "a.pt").artifact.load()
    result = gate(build(small(seed=1), tmp_path / "b.pt"), measured)
    assert result.verdict is Verdict.FAIL
    assert result.observed == 0
    assert "the logits of 2 of 2 images differ" in result.detail


def test_catches_a_truncated_file(tmp_path: Path) -> None:
    built = build(small(), tmp_path / "a.pt")
    measured = built.artifact.load()
    content = built.artifact.path.read_bytes()
    short = tmp_path / "short.pt"
    short.write_bytes(content[: len(content) // 2])
    result = gate(replace(built, artifact=replace(built.artifact, path=short)), measured)
    assert result.verdict is Verdict.FAIL
    assert "A fresh process cannot run the file under fbgemm" in result.detail


def test_says_when_the_file_records_no_engine(tmp_path: Path) -> None:
    result = gate(build(small(), tmp_path / "a.pt"), recorded="")
    assert result.verdict is Verdict.PASS
    assert "does not record the engine" in result.detail


def test_a_process_without_a_job_ends_with_its_owner() -> None:
    with ReplayProcess() as fresh:
        fresh.ready()
        process = fresh._process
        assert process is not None and process.poll() is None  # it waits
    assert process.poll() is not None


def test_a_process_that_was_started_early_runs_the_file(tmp_path: Path) -> None:
    built = build(small(), tmp_path / "a.pt")
    images = built.images[:2]
    with ReplayProcess() as process:
        process.ready()
        replayed = process.replay(built.backend, built.artifact.path, images)
    assert (replayed.engine, replayed.error) == (built.backend.engine, "")
    assert replayed.logits is not None
    assert replayed.logits.tolist() == built.artifact.load()(images).tolist()
