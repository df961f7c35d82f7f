"""The folder of finished cases: what it depends on, and what it survives."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.errors import UserError
from ptqbench.evaluation import resume
from ptqbench.evaluation.case import unavailable_case
from ptqbench.evaluation.case_plan import ModelPlan, plan_requests
from ptqbench.evaluation.resume import ResultFolder
from ptqbench.evaluation.run import report_of
from ptqbench.settings.requests import CaseRequest

BACKEND = next(backend for backend in TORCH_ENGINES if backend.availability() is None)
KEY = ("resnet18", BACKEND.name)


@pytest.fixture
def plan() -> ModelPlan:
    (plan,) = plan_requests([CaseRequest("resnet18", (BACKEND.name,), "a test")])
    return plan


def opened(folder: Path, plan: ModelPlan) -> tuple[ResultFolder, list[str]]:
    """The folder as a new run opens it, and its messages."""
    messages: list[str] = []
    results = ResultFolder(str(folder), messages.append)
    results.restore([plan])
    return results, messages


def write(folder: Path, plan: ModelPlan) -> list[str]:
    """Write a result of the case; returns the messages."""
    results, messages = opened(folder, plan)
    case = unavailable_case(plan.recipe, BACKEND, "It crashed.", plan.settings)
    results.write(KEY, report_of(case, plan))
    return messages


def test_a_result_is_read_again(tmp_path: Path, plan: ModelPlan) -> None:
    assert write(tmp_path, plan) == []
    results, messages = opened(tmp_path, plan)
    assert list(results.finished) == [KEY]
    assert messages == [f"1 of 1 results were read from {tmp_path}."]


def test_a_result_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, plan: ModelPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UserError("No space left on device.")

    monkeypatch.setattr(resume, "write_text", full)
    (message,) = write(tmp_path, plan)
    assert message == (
        f"The result of resnet18 on {BACKEND.name} is not kept: No space left on device."
    )


def test_another_quota_of_cpus_is_another_machine(
    tmp_path: Path, plan: ModelPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, plan)
    facts = {**resume.machine_facts(), "cpu_quota": 0.5}
    monkeypatch.setattr(resume, "machine_facts", lambda: facts)
    results, (message,) = opened(tmp_path, plan)
    assert results.finished == {}
    assert "belongs to another request, with other machine" in message


@pytest.mark.parametrize("damage", [{"request": []}, {"ended_after_seconds": "long"}])
def test_a_damaged_file_is_measured_again(
    tmp_path: Path, plan: ModelPlan, damage: dict[str, object]
) -> None:
    write(tmp_path, plan)
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    messages: list[str] = []
    results = ResultFolder(str(tmp_path), messages.append)
    results.restore([plan], time_limit=1.0)
    assert results.finished == {}
    assert "its file is damaged" in messages[0]


def test_links_that_lead_back_are_followed_once(tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    folder.mkdir()
    (folder / "a.png").touch()
    for name in ("left", "right"):
        (folder / name).symlink_to(folder)
    lines = list(islice(resume._listing(tmp_path), 100))
    assert sum("a.png" in line for line in lines) == 1
    assert len(lines) == 5  # each folder and link, and the picture
