"""A verdict that has been reached is shown, whatever happens to the files."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from ptqbench.cli.report_output import conclude
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import Verdict

BROKEN_NAME = os.fsdecode(b"caf\xe9.jpg")


def report_of(verdict: Verdict = Verdict.FAIL) -> Report:
    gate = GateResult("accuracy", verdict, 0.9, 0.99, (0.8, 0.95), 100, f"See {BROKEN_NAME}.")
    facts = {
        "notes": (f"{BROKEN_NAME} is small.",),
        "broken_evaluation_images": 1,
        "broken_evaluation_files": (BROKEN_NAME,),
        BROKEN_NAME: 1,
    }
    case = CaseResult(
        "resnet18", "fixture", "x86", f"/data/{BROKEN_NAME}", "ab", {}, (gate,), facts
    )
    return Report({"cpu": "CPU"}, (case,), notes=(BROKEN_NAME,))


def finish(report: Report, outputs: dict[str, Path | None]) -> int:
    return conclude(report, outputs, timings=False, strict=False)


def test_a_file_that_cannot_be_written_hides_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {"json": tmp_path / "gone" / "result.json", "markdown": tmp_path / "result.md"}
    assert finish(report_of(), outputs) == 2
    out, err = capsys.readouterr()
    assert "1 case: ✗ 1 fail" in out
    assert err.startswith("ptqbench: error: Cannot write ") and "there is no folder" in err
    assert "fail" in (tmp_path / "result.md").read_text("utf-8")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
def test_a_full_disk_is_told_after_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {"json": Path("/dev/full"), "markdown": Path("/dev/full")}
    assert finish(report_of(), outputs) == 2
    out, err = capsys.readouterr()
    assert "1 case: ✗ 1 fail" in out
    assert err.count("No space left on device") == 2


def test_a_screen_that_fails_does_not_prevent_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert finish(report_of(), {"json": tmp_path / "result.json"}) == 2
    assert "Cannot write the report to the screen: No space left" in capsys.readouterr().err
    assert json.loads((tmp_path / "result.json").read_text("utf-8"))["verdict"] == "fail"


def test_the_verdict_decides_once_everything_is_written(tmp_path: Path) -> None:
    outputs: dict[str, Path | None] = {"json": tmp_path / "result.json", "markdown": None}
    del outputs["markdown"]
    assert finish(report_of(), outputs) == 1
    assert finish(report_of(Verdict.PASS), outputs) == 0


def test_names_that_are_not_utf_8_are_escaped_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs: dict[str, Path | None] = {"json": None, "markdown": tmp_path / "result.md"}
    assert finish(report_of(), outputs) == 1
    out, err = capsys.readouterr()
    (case,) = json.loads(out)["cases"]
    assert case["data"] == r"/data/caf\xe9.jpg"
    assert case["facts"]["broken_evaluation_files"] == [r"caf\xe9.jpg"]
    assert case["facts"][r"caf\xe9.jpg"] == 1
    assert case["gates"][0]["detail"] == r"See caf\xe9.jpg."
    assert r"See caf\xe9.jpg." in err and r"took no part: caf\xe9.jpg." in err
    assert "✗ 1 fail" in err  # other characters stay what they are
    assert r"See caf\\xe9.jpg" in (tmp_path / "result.md").read_text("utf-8")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_any_terminal_can_show_them(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
    assert finish(report_of(), {}) == 1
    sys.stdout.flush()
    assert rb"See caf\xe9.jpg." in buffer.getvalue()
