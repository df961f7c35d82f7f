"""Reports of a pytest session: each one is tried, and any file name can be written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import execnet
from helpers.reports import MACHINE

from ptqbench.evaluation.result import CaseResult
from ptqbench.gates.gate import GateResult, Verdict
from ptqbench.testing.outcomes import receive, send, write_reports

BROKEN_NAME = os.fsdecode(b"caf\xe9.jpg")


def session(reports: dict[str, Path]) -> SimpleNamespace:
    gate = GateResult("accuracy", Verdict.PASS, 1.0, 0.9, (0.9, 1.0), 9, f"Without {BROKEN_NAME}.")
    facts = {"broken_evaluation_images": 1, "broken_evaluation_files": (BROKEN_NAME,)}
    case = CaseResult("resnet18", "fixture", "x86", f"/{BROKEN_NAME}", "ab", {}, (gate,), facts)
    return SimpleNamespace(
        reports=reports,
        machine=MACHINE,
        records=[case],
        notes=[f"{BROKEN_NAME} was skipped."],
        profile="local",
        collected=True,
    )


def test_a_report_that_cannot_be_written_does_not_prevent_the_other(tmp_path: Path) -> None:
    state = session({"json": tmp_path / "none" / "out.json", "markdown": tmp_path / "out.md"})
    assert not write_reports(state)  # type: ignore[arg-type]
    assert "there is no folder" in state.notes[-1]
    assert r"caf\\xe9.jpg was skipped" in (tmp_path / "out.md").read_text("utf-8")


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    state = session({"json": tmp_path / "out.json"})
    assert write_reports(state)  # type: ignore[arg-type]
    (case,) = json.loads((tmp_path / "out.json").read_text("utf-8"))["cases"]
    assert case["facts"]["broken_evaluation_files"] == [r"caf\xe9.jpg"]


def test_a_worker_can_send_them() -> None:
    sent = execnet.loads(execnet.dumps(send(session({}))))  # type: ignore[arg-type]
    state = session({})
    state.records.clear()
    receive(state, sent)  # type: ignore[arg-type]
    assert state.records[0].data == r"/caf\xe9.jpg"
    assert state.notes[-1] == r"caf\xe9.jpg was skipped."
