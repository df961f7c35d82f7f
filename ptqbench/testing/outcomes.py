"""Turn verdicts into test outcomes, and the records of all tests into reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ptqbench.core.names import safe_file_name
from ptqbench.errors import UserError
from ptqbench.evaluation.result import CaseResult, plain
from ptqbench.gates.gate import GateResult, unverified
from ptqbench.gates.verdict import Verdict, worst
from ptqbench.recipes import RECIPES
from ptqbench.reporting.report_files import write_reports as write_files
from ptqbench.settings.requests import CaseRequest
from ptqbench.testing import baseline
from ptqbench.testing.records import report_of, sentence
from ptqbench.testing.session_state import State


def judge_and_record(state: State, case: CaseRequest, gate: str) -> tuple[str, Verdict]:
    """Judge a case by a gate and record the result for the summary and the reports.

    Returns:
        The verdict, and a sentence that explains it.
    """
    __tracebackhide__ = True
    try:
        result = state.runner.judge(case, gate)
    except UserError as error:
        state.records.append(_unjudged(case, gate, str(error)))
        pytest.fail(f"{gate} of {case.model} on {case.backend}: {error}", pytrace=False)
    except Exception as error:
        state.records.append(_unjudged(case, gate, f"{type(error).__name__}: {error}"))
        raise
    state.records.append(result)
    lines = [sentence(result, each, origin(case, each)) for each in result.gates]
    return "\n".join(lines), worst(each.verdict for each in result.gates)


def _unjudged(case: CaseRequest, gate: str, reason: str) -> CaseResult:
    """Record a gate that ended in an error: a report must not omit it."""
    outcome = unverified(gate, f"It could not be judged: {reason}")
    recipe = RECIPES.get(case.model).hash
    return CaseResult(
        case.model,
        str(case.settings.weights),
        case.backend,
        case.settings.data,
        recipe,
        {},
        (outcome,),
    )


def origin(case: CaseRequest, gate: GateResult) -> str:
    """Return who set the threshold that a gate's number was compared with."""
    names = (gate.quantity, f"{gate.quantity}_ratio")
    origins = [
        setter for name, setter in case.threshold_origins.items() if name.partition(".")[0] in names
    ]
    # Per instruction set there are several; the one that the user set is what matters.
    by_user = [setter for setter in origins if setter not in ("recipe", "default")]
    setters = by_user or origins
    return f"set by {setters[0]}" if setters else ""


def settle(message: str, verdict: Verdict, profile: str) -> None:
    """Make a verdict the outcome of the test."""
    __tracebackhide__ = True
    if verdict is Verdict.PASS:
        return
    if verdict is Verdict.FAIL or profile == "ci":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def check_reference(state: State, case: CaseRequest, *, update: bool) -> None:
    """Compare a case with its committed reference, or rewrite the reference.

    A number that became better fails as well: unless the reference is updated, it would not
    notice when the gain is lost again.
    """
    __tracebackhide__ = True
    setting = state.settings.value("baselines").value
    if setting is None:
        pytest.fail(
            f"reference of {case.model} on {case.backend}: there is no folder of references. Set "
            "`baselines` in [tool.ptqbench] to it.",
            pytrace=False,
        )
    folder = Path(setting)
    try:
        current = state.runner.reference(case)
        path = folder / f"{safe_file_name(case.model)}.json"
        if update:
            # Two workers may each have a case of the same model.
            state.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(state.folder / f"{path.name}.lock"):
                old = baseline.read(path, case.model)
                changed = baseline.updated(old, current.key, current.recipe, current.numbers)
                baseline.write(path, changed)
            state.notes.append(f"Reference of {case.model} on {current.key} written to {path}.")
            return
        old = baseline.read(path, case.model)
    except UserError as error:
        pytest.fail(f"reference of {case.model} on {case.backend}: {error}", pytrace=False)
    differences = baseline.compare(old.cases.get(current.key), current.recipe, current.numbers)
    backends = list(state.runner.backends())
    differences += baseline.unused_cases(old, backends)
    if differences:
        verdict = baseline.verdict(differences)
        changes = ", ".join(f"{each.name} is {each.kind}" for each in differences)
        state.notes.append(
            f"reference of {case.model} on {current.key}: {verdict.value}. {changes}."
        )
        settle(baseline.explain(case.model, current.key, differences), verdict, state.profile)


def send(state: State) -> dict[str, Any]:
    """Return what a worker sends to the session, in plain types."""
    return {
        "records": [case.to_dict() for case in state.records],
        "machine": plain(state.machine),
        "notes": plain(state.notes),
        "collected": state.collected,
    }


def receive(state: State, sent: Mapping[str, Any]) -> None:
    """Add what a worker has sent to the session."""
    state.records += [CaseResult.from_dict(content) for content in sent["records"]]
    state.machine = state.machine or sent["machine"]
    state.notes += sent["notes"]
    state.collected = state.collected or sent["collected"]


def write_reports(state: State) -> bool:
    """Write the requested reports.

    Returns:
        Whether all were written; failures become notes in the summary.
    """
    if not state.reports:
        return True
    # Without a verdict the machine has not been described yet.
    machine = state.machine or state.runner.machine()
    report = report_of(state.records, machine, {"profile": state.profile}, state.notes)
    failures = write_files(report, state.reports)
    state.notes += failures
    return not failures
