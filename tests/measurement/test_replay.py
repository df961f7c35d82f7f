"""Files in another process: answers, deaths, hangs, and processes that cannot start."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.small_artifacts import Built, build, small
from torch import Tensor, nn

from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.foreign_artifact import Behaviour, NotRunningError
from ptqbench.gates import GATES, Evidence, Verdict
from ptqbench.measurement import replay
from ptqbench.measurement.artifact_inspection import ArtifactInspection, ArtifactProvenance
from ptqbench.measurement.conversion import Promise
from ptqbench.measurement.cross_engine import backends_that_run
from ptqbench.measurement.replay import (
    FileKillsProcessError,
    NotStartedError,
    Replayed,
    ReplayProcess,
)
from ptqbench.settings.thresholds import Thresholds


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(small(), tmp_path_factory.mktemp("replay") / "a.pt")


@pytest.fixture
def deadly() -> Iterator[ModuleType]:
    # Not imported above: importing it registers backends.
    module = importlib.import_module("helpers.deadly_backends")
    with module.registered():
        yield module


def example() -> Tensor:
    return torch.zeros(1, 3, 16, 16)


def test_a_file_that_kills_or_hangs_its_process(
    built: Built, deadly: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images = built.artifact.path, built.images[:2]
    with ReplayProcess() as process:
        with pytest.raises(FileKillsProcessError, match="killed by SIGSEGV"):
            process.try_out(deadly.KILLING, path, images, example(), 10)
        # The next job gets another process.
        process.start(deadly.HANGING, path, images)
        monkeypatch.setattr(replay, "TIMEOUT_S", 0.5)
        replayed = process.result()
        assert replayed.hung and replayed.error == "it did not finish within 0.5 s"
        monkeypatch.undo()
        behaviour = process.try_out(built.backend, path, images, example(), 10)
        assert behaviour == Behaviour(one_at_a_time=False, probabilities=False)
        with pytest.raises(NotRunningError) as caught:
            process.try_out(built.backend, path.with_name("missing.pt"), images, example(), 10)
        assert not caught.value.loads


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'ImportError: no torch here' >&2; exit 1", "ImportError: no torch here"),
        ("kill -9 $$", f"its process was killed by {signal.SIGKILL.name}"),
        ("exit 3", "its process ended with code 3"),
        (None, "No such file or directory"),
    ],
)
def test_a_process_that_cannot_start_leaves_fidelity_unverified(
    built: Built,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str | None,
    reason: str,
) -> None:
    python = str(tmp_path / "missing") if body is None else script(tmp_path / "python", body)
    monkeypatch.setattr(sys, "executable", python)
    provenance = ArtifactProvenance(
        built.artifact.path, built.backend, built.backend, built.record, Promise()
    )
    model = built.artifact.load()
    inspection = ArtifactInspection(provenance, model, built.reference, built.images)
    result = inspection.measure(["fidelity"])
    assert not result.measurements
    evidence = Evidence(Thresholds(), "avx2", missing=result.missing)
    gate = GATES.get("fidelity")(evidence)
    assert gate.verdict is Verdict.UNVERIFIED
    assert "could not be run in another process" in gate.detail and reason in gate.detail
    with ReplayProcess() as process, pytest.raises(NotStartedError, match="did not start"):
        process.try_out(built.backend, built.artifact.path, built.images, example(), 10)


class Prints(nn.Module):
    """Prints from within TorchScript, which flushes."""

    def forward(self, x: Tensor) -> Tensor:
        print("hello")
        return x.mean((2, 3))


def test_what_is_printed_is_not_taken_for_an_answer(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('\\nhello', flush=True)\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "prints.pt"
    torch.jit.save(torch.jit.script(Prints()), str(path))
    with ReplayProcess() as process:
        replayed = process.replay(built.backend, path, built.images[:1])
    assert replayed.error == "" and replayed.logits is not None
    assert replayed.logits == pytest.approx(built.images[:1].mean((2, 3)).numpy(), abs=1e-6)


def test_a_hang_is_told_from_a_death_however_soon_the_killed_process_ends(
    built: Built, deadly: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images = built.artifact.path, built.images[:2]
    with ReplayProcess() as process:
        process.start(deadly.HANGING, path, images)
        child = process._process
        assert child is not None
        kill = child.kill

        def kill_and_linger() -> None:
            kill()
            time.sleep(1)

        monkeypatch.setattr(child, "kill", kill_and_linger)
        monkeypatch.setattr(replay, "TIMEOUT_S", 0.5)
        assert process.result().hung
        monkeypatch.undo()
        # It has ended by now, so that the next job gets another process at once.
        assert child.returncode is not None
        assert process.replay(built.backend, path, images).error == ""


def test_after_a_hang_no_other_backend_is_tried(built: Built) -> None:
    tried: list[str] = []

    class Hangs:
        def replay(self, backend: Backend, path: Path, images: Tensor) -> Replayed:
            tried.append(backend.name)
            return Replayed(None, error="it did not finish", hung=True)

    process: Any = Hangs()
    others = list(BACKENDS)
    assert backends_that_run(built.artifact.path, built.images[:1], others, process) == []
    assert tried == [others[0].name]
