"""A process for each case: one that crashes, hangs or runs out of memory ends alone."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.child_process import end_group, start_python
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.evaluation.case import unavailable_case
from ptqbench.evaluation.case_plan import CaseKey, ModelPlan, plan_requests, refusal
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.evaluation.resume import ResultFolder
from ptqbench.evaluation.run import assembled, check_weights, report_of
from ptqbench.recipes.recipe import MEASURED
from ptqbench.settings.requests import CaseRequest

_WORKER = ("ptqbench.cli.case_worker", "work")
_GRACE = 5.0
"""Seconds in which a process that is ended may remove its temporary files."""
_STDERR = 2


@dataclass(frozen=True)
class CaseProcess:
    """How the process of a case is started.

    Attributes:
        argv: Command line of the whole run; the process takes one case of it.
        time_limit: Seconds from start to end, imports included; None: no limit.
    """

    argv: Sequence[str]
    time_limit: float | None = None

    def run(self, key: CaseKey) -> Report | CaseFailure:
        """Evaluate a case, whatever becomes of its process.

        Args:
            key: The case.
        """
        with tempfile.TemporaryDirectory(prefix="ptqbench-") as folder:
            file = Path(folder) / "report.json"
            task = {"argv": list(self.argv), "model": key[0], "backend": key[1], "file": str(file)}
            process = start_python(*_WORKER, stdout=_STDERR, stderr=_STDERR, new_group=True)
            overdue = False
            try:
                process.communicate(json.dumps(task).encode(), self.time_limit)
            except subprocess.TimeoutExpired:
                overdue = True
            finally:
                end_group(process, _GRACE)
            if overdue:
                limit = self.time_limit
                return CaseFailure(f"It did not end within {limit:g} s (--time-limit).", limit)
            return _outcome(file, process.returncode)


@dataclass(frozen=True)
class CaseFailure:
    """Why the process of a case has no result.

    Attributes:
        reason: A sentence.
        time_limit: The limit in s that ended it; None: it ended otherwise.
    """

    reason: str
    time_limit: float | None = None


def run_isolated(
    requests: Sequence[CaseRequest],
    process: CaseProcess,
    display: AbstractContextManager[Progress] = nullcontext(silent),  # noqa: B008 - reusable
    phases: Phases | None = None,
    results: ResultFolder | None = None,
) -> Report:
    """Evaluate the requested cases, each in a process that ends with it.

    A case whose process crashes, takes too long or ends with an error is unverified, with the
    reason; the others are evaluated nevertheless.

    Args:
        requests: One per model.
        process: How the processes are started.
        display: Shows progress until the first process starts, which then reports itself.
        phases: Where time is counted, that of the processes included.
        results: Finished cases, which are not measured again; the others are added.

    Raises:
        UserError: An unknown name, or weights that cannot be downloaded.
    """
    phases = phases or Phases()
    plans = plan_requests(requests)
    cases: dict[CaseKey, CaseResult] = {}
    if results is not None:
        results.restore(plans, process.time_limit)
        cases |= results.finished
    with display as progress:
        pending = [plan for plan in plans if plan.without(cases).backends]
        check_weights(pending, progress, phases)
    for plan in plans:
        for key in plan.without(cases).keys:
            failure = None
            if reason := refusal(plan.recipe, key[1]):
                report = report_of(_unverified(plan, key[1], reason), plan)
            else:
                started = time.perf_counter()
                outcome = process.run(key)
                if isinstance(outcome, CaseFailure):
                    failure = outcome
                    report = report_of(_unverified(plan, key[1], failure.reason), plan)
                else:
                    report = outcome
                _count(phases, report, time.perf_counter() - started)
            (cases[key],) = report.cases
            if results is not None:
                results.write(key, report, failure.time_limit if failure else None)
    return assembled(plans, cases)


def _count(phases: Phases, report: Report, seconds: float) -> None:
    """Add the phases of a process, and the rest of the time that it took."""
    for phase in report.phases:
        phases.add(phase.name, phase.seconds, phase.forward)
    rest = seconds - sum(phase.seconds for phase in report.phases)
    phases.add("processes of cases", max(0.0, rest))


def _unverified(plan: ModelPlan, backend: str, reason: str) -> CaseResult:
    if backend != MEASURED:
        return unavailable_case(plan.recipe, BACKENDS.get(backend), reason, plan.settings)
    any_backend = next(iter(BACKENDS))
    case = unavailable_case(plan.recipe, any_backend, reason, plan.settings)
    return replace(case, backend=MEASURED, facts={})


def _outcome(file: Path, code: int) -> Report | CaseFailure:
    """Return what the process of a case has written, or how it ended."""
    if file.is_file():
        content = json.loads(file.read_text("utf-8"))
        if "error" not in content:
            return Report.from_dict(content)
        return CaseFailure(str(content["error"]))
    if code == -signal.SIGKILL:
        return CaseFailure("Its process was ended by SIGKILL, as if memory had run out.")
    if code < 0:
        return CaseFailure(f"Its process was ended by {signal.Signals(-code).name}.")
    return CaseFailure(f"Its process ended with exit code {code} and without a result.")
