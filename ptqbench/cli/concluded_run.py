"""Judge one model on several backends, and conclude something from all its files together."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from ptqbench.cli.startup import STARTED

if TYPE_CHECKING:
    from ptqbench.backends.artifact import Artifact
    from ptqbench.core.progress import Progress
    from ptqbench.evaluation.float_rivals import FloatRivals
    from ptqbench.evaluation.result import CaseResult, Report
    from ptqbench.evaluation.subject import Subject
    from ptqbench.settings.requests import CaseRequest

T = TypeVar("T")
Conclusion = Callable[
    ["Subject", "FloatRivals", "Mapping[str, Artifact]", "Mapping[str, CaseResult]", "Progress"], T
]
"""What is concluded from a subject, its float32 side, its int8 files and their cases, by backend;
the files are removed afterwards."""


def run_concluded(
    args: argparse.Namespace, request: CaseRequest, conclusion: Conclusion[T]
) -> tuple[T, Report]:
    """Put the files of all requested backends through the gates, and draw a conclusion.

    Args:
        args: Of the command line; ``quiet`` suppresses progress lines.
        request: One model, any backends.
        conclusion: Called once, when all cases have ended.

    Returns:
        What was concluded, and the report of the cases.

    Raises:
        UserError: None of the backends can run here, or the request cannot be fulfilled.
    """
    from ptqbench.core.phases import Phases
    from ptqbench.errors import UserError
    from ptqbench.evaluation.run import run_requests
    from ptqbench.reporting.progress_display import progress_display

    phases = Phases()
    phases.add("start and imports", time.perf_counter() - STARTED)
    answers: list[T] = []
    with progress_display(lines=not args.quiet) as progress:

        def conclude(
            subject: Subject,
            rivals: FloatRivals,
            artifacts: Mapping[str, Artifact],
            cases: Mapping[str, CaseResult],
        ) -> None:
            answers.append(conclusion(subject, rivals, artifacts, cases, progress))

        report = run_requests([request], progress, phases, conclude=conclude)
    if not answers:
        raise UserError(
            f"No backend can run {request.model} here. ptqbench list says what each of them needs."
        )
    return answers[0], report
