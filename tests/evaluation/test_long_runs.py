"""`ptqbench run --resume`, `--isolate` and `--time-limit`, with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from helpers.custom_models import save, seeded, write_photos
from helpers.tiny_networks import Tiny

from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.evaluation.result import Report
from ptqbench.gates.verdict import Verdict
from ptqbench.reporting.json_report import schema

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
AVAILABLE = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]
FIRST, SECOND = AVAILABLE[:2]
NETS = """\
import os, signal, sys, time
from helpers.tiny_networks import Tiny

def good(num_classes=4):
    return Tiny()

def crashes(num_classes=4):
    os.kill(os.getpid(), signal.SIGSEGV)

def leaves(num_classes=4):
    os._exit(0)

def hangs(num_classes=4):
    with open("pid", "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)

def wrong(num_classes=4):
    raise ValueError("no such layer")
"""
NETWORKS = ("good", "crashes", "leaves", "wrong", "hangs")
SETTINGS = 'data = "photos"\ninput_size = 16\nthreads = 1\nlimit = 24\n' + "".join(
    f'[model."nets.py:{name}"]\nweights = "{name}.safetensors"\n' for name in NETWORKS
)


@dataclass(frozen=True)
class Project:
    """A folder with models, weights, photographs and settings."""

    folder: Path

    def start(self, *argv: str) -> subprocess.Popen[str]:
        unwanted = ("CI", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
        environment = {k: v for k, v in os.environ.items() if k not in unwanted}
        environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        return subprocess.Popen(
            [sys.executable, "-m", "ptqbench", "run", *argv],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # In the background of a shell it would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *argv: str) -> tuple[Report, str]:
        """The report of a run and what it wrote to standard error."""
        result = self.folder / "result.json"
        result.unlink(missing_ok=True)
        process = self.start(*argv, "--json", result.name)
        _, errors = process.communicate(timeout=300)
        assert process.returncode in (0, 1), errors  # a random network may fail gates
        content = json.loads(result.read_text())
        jsonschema.validate(content, schema())
        return Report.from_dict(content), errors

    def times(self) -> dict[str, int]:
        """When each stored result was written."""
        return {path.name: path.stat().st_mtime_ns for path in (self.folder / "done").iterdir()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "ptqbench.toml").write_text(SETTINGS)
    write_photos(tmp_path / "photos" / "train", 4, 24, 0)
    write_photos(tmp_path / "photos" / "val", 4, 24, 2)
    for name in NETWORKS:
        save(seeded(Tiny), tmp_path / f"{name}.safetensors")
        (tmp_path / f"{name}.safetensors.json").write_text('{"resize": 16, "crop": 16}')
    return Project(tmp_path)


VARYING = ("float32_latency", "int8_latency", "speedup", "float32_bytes", "int8_bytes", "size")
"""Beginnings of what the clock decides, and sizes: float32 is the fastest of several lowerings,
and torch numbers the classes in a file by what the process has lowered before."""


def numbers(report: Report) -> list[Any]:
    """Everything about a report that does not vary."""
    cases = []
    for case in report.cases:
        metrics = {
            name: value and round(value, 3)
            for name, value in case.metrics.items()
            if not name.startswith(VARYING)
        }
        gates = [(g.name, g.verdict, g.n) for g in case.gates if not g.name.startswith(VARYING)]
        cases.append((case.model, case.backend, case.weights, case.data, metrics, gates))
    return [cases, report.settings, report.machine]


def test_a_finished_case_is_not_measured_again(project: Project) -> None:
    argv = ("nets.py:good", "--backend", FIRST, "--backend", SECOND)
    plain, _ = project.run(*argv)
    isolated, errors = project.run(*argv, "--resume", "done", "--isolate")
    assert numbers(isolated) == numbers(plain)
    assert f"nets.py:good on {SECOND}: quantize" in errors
    before = project.times()
    assert len(before) == 2 and not any(name.startswith(".") for name in before)

    again, errors = project.run(*argv, "--resume", "done")
    assert project.times() == before and "quantize" not in errors
    assert "2 of 2 results were read from done" in errors
    assert again.cases == isolated.cases and again.settings == isolated.settings

    # One file is damaged, and one belongs to other weights: only these are replaced.
    damaged, other = sorted((project.folder / "done").iterdir())
    damaged.write_text(damaged.read_text()[:1000])
    _, errors = project.run(*argv, "--resume", "done")
    now = project.times()
    assert "is measured again: its file is damaged" in errors
    assert now[damaged.name] != before[damaged.name] and now[other.name] == before[other.name]
    assert Report.from_dict(json.loads(damaged.read_text())).cases

    shutil.copy(
        project.folder / "photos/val/ball/0000.png", project.folder / "photos/val/ball/x.png"
    )
    _, errors = project.run(*argv[:3], "--resume", "done", "--seed", "3")
    assert "belongs to another request, with other settings and images" in errors
    assert f"nets.py:good on {FIRST}: quantize" in errors


def test_cases_that_crash_leave_the_others_alone(project: Project) -> None:
    names = ("crashes", "leaves", "wrong", "good")
    argv = (*(f"nets.py:{name}" for name in names), "--backend", FIRST, "--resume", "done")
    report, _ = project.run(*argv, "--isolate")
    cases = {case.model.removeprefix("nets.py:"): case for case in report.cases}
    assert sorted(cases) == sorted(names)
    assert any(gate.verdict is Verdict.PASS for gate in cases["good"].gates)
    for name, words in (
        ("crashes", "ended by SIGSEGV"),
        ("leaves", "exit code 0 and without a result"),
        ("wrong", "for 4 classes: ValueError: no such layer"),
    ):
        assert {gate.verdict for gate in cases[name].gates} == {Verdict.UNVERIFIED}
        assert all(words in gate.detail for gate in cases[name].gates), name

    before = project.times()
    again, errors = project.run(*argv, "--isolate")
    assert again.cases == report.cases and project.times() == before
    assert "4 of 4 results were read" in errors


def test_a_case_that_hangs_is_ended_and_measured_again_under_a_longer_limit(
    project: Project,
) -> None:
    argv = ("nets.py:hangs", "--backend", FIRST, "--resume", "done", "--time-limit")
    report, _ = project.run(*argv, "2")
    assert "did not end within 2 s" in report.cases[0].gates[0].detail
    assert report.verdict is Verdict.UNVERIFIED
    _, errors = project.run(*argv, "1")
    assert "1 of 1 results were read" in errors
    _, errors = project.run(*argv, "3")
    assert "it was ended after 2 s, and may take longer now" in errors


def check_gone(pid: int) -> None:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} is still there")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_of_a_case_ends_with_the_run(project: Project, number: int) -> None:
    process = project.start("nets.py:hangs", "--backend", FIRST, "--isolate")
    pid = project.folder / "pid"
    while not pid.exists() or not pid.read_text():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else 130)
    check_gone(int(pid.read_text()))


def test_the_measured_backend_has_a_process_too(project: Project) -> None:
    argv = ("nets.py:good", "--resume", "done", "--isolate")
    report, _ = project.run(*argv)
    (case,) = report.cases
    assert case.backend in AVAILABLE
    assert [name.split("-")[-1] for name in project.times()] == ["measured.json"]
    again, errors = project.run(*argv)
    assert again.cases == report.cases and "1 of 1 results were read" in errors


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nosuch", "--isolate"), "Unknown model"),
        (("resnet18", "--isolate", "--data", "missing"), "no images at missing"),
        (("resnet18", "--time-limit", "0"), "expected a number of seconds above 0"),
        (("resnet18", "--resume", "ptqbench.toml"), "cannot be created"),
    ],
)
def test_mistakes_are_refused_at_once(project: Project, argv: tuple[str, ...], words: str) -> None:
    process = project.start(*argv)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and words in errors and "Traceback" not in errors
