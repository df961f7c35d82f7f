"""What to ship: the selection, its sentence, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.cli import main
from ptqbench.core.names import safe_file_name
from ptqbench.evaluation.recommendation import (
    FLOAT32,
    INT8,
    Candidate,
    Recommendation,
    select,
)
from ptqbench.evaluation.result import CaseResult
from ptqbench.gates import GateResult, Verdict
from ptqbench.reporting.console import render
from ptqbench.reporting.recommendation_view import recommendation_view, sentence

BACKEND = next(backend.name for backend in TORCH_ENGINES if backend.availability() is None)


def artifact(name: str) -> Artifact:
    return Artifact(Path(f"{name}.pt"), ArtifactInfo(INT8, name, name, "net"))


def float32(name: str, ms: float | None, size: int = 400) -> Candidate:
    return Candidate(FLOAT32, name, artifact(name), size, ms)


def int8(name: str, ms: float | None, size: int = 100, **verdicts: Verdict) -> Candidate:
    gates = tuple(
        GateResult(gate, verdict, None, None, None, None, "") for gate, verdict in verdicts.items()
    )
    metrics = {"float32_top1": 0.8, "int8_top1": 0.79, "agreement": 0.98, "sqnr_db": 25.0}
    case = CaseResult("net", "fixture", name, "fixture", "abc", metrics, gates)
    return Candidate(INT8, name, artifact(name), size, ms, case)


def recommendation(*candidates: Candidate) -> Recommendation:
    ordered = sorted(candidates, key=lambda each: (each.ms is None, each.ms or 0.0))
    missing = {"absent": "it is not installed"}
    shape = (1, 3, 224, 224)
    return Recommendation("net", tuple(ordered), select(ordered), missing, shape, 2)


def test_the_fastest_file_that_no_gate_failed_is_selected() -> None:
    failed = int8("quick", 1.0, accuracy=Verdict.FAIL)
    slower = int8("steady", 3.0, accuracy=Verdict.PASS)
    answer = recommendation(failed, slower, float32("torch", 6.0), float32("other", 4.0))
    assert answer.choice is slower
    text = sentence(answer)
    assert text.startswith(
        "Ship int8 in steady: 3.00 ms, 1.33× as fast as float32 in other (4.00 ms)"
    )
    assert "4.00× smaller" in text and "top-1 80.00 → 79.00 %" in text
    shown = render(recommendation_view(answer), 120)
    assert "fails accuracy" in shown and "Not tried: absent: it is not installed." in shown


def test_keeping_float32_is_an_answer() -> None:
    answer = recommendation(int8("steady", 5.0), float32("other", 4.0))
    assert answer.choice.precision == FLOAT32
    assert sentence(answer) == (
        "Keep float32 in other (4.00 ms): int8 in steady takes 5.00 ms, so int8 gains no time here."
    )
    answer = recommendation(int8("steady", 1.0, fusion=Verdict.FAIL), float32("other", 4.0))
    assert sentence(answer).endswith("no int8 file passes the gates.")


def test_of_equally_fast_files_the_smallest_is_selected() -> None:
    small, large = int8("small", 4.05, size=90), float32("other", 4.0)
    assert select([large, small]) is small
    assert select([large, replace(small, ms=4.2)]) is large


def test_what_is_in_doubt_is_said_and_does_not_remove() -> None:
    doubtful = int8("steady", 2.0, accuracy=Verdict.INCONCLUSIVE, speedup=Verdict.UNVERIFIED)
    answer = recommendation(doubtful, float32("other", 4.0))
    assert answer.choice is doubtful
    assert "Not yet shown: accuracy (inconclusive), speedup (unverified)." in sentence(answer)


def test_nothing_that_was_timed_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="No candidate was timed"):
        select([float32("torch", None)])


@pytest.mark.slow
@pytest.mark.usefixtures("torch_settings")
def test_the_command_writes_the_file_and_its_card(
    user_case: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = user_case.argv("--backend", BACKEND, "--out", str(tmp_path / "out"))
    argv = ["recommend", *argv[1:], "--json", str(tmp_path / "all.json")]
    assert main(argv) == 0
    screen = capsys.readouterr().out
    assert "float32 in torch" in screen and f"int8 in {BACKEND}" in screen
    (card,) = (tmp_path / "out").glob("*.md")
    file = card.with_suffix("")
    assert str(file) in screen and str(card) in screen
    info = Artifact.open(file).info
    assert info.model == user_case.model
    text = card.read_text("utf-8")
    for part in ("SHA-256", "## Compared with", "ptqbench recommend", f"{file.stat().st_size:,}"):
        assert part in text
    (case,) = json.loads((tmp_path / "all.json").read_text("utf-8"))["cases"]
    assert case["backend"] == BACKEND
    assert safe_file_name(user_case.model) in file.name


def test_a_folder_that_cannot_be_written_to_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["recommend", "resnet18", "--out", str(tmp_path / "file")]) == 2
    assert "cannot be a folder for the recommended file" in capsys.readouterr().err
