"""The command ``run``: quantize models and judge the artifacts."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ptqbench.cli.command import Command, add_reporting
from ptqbench.cli.report_output import conclude, report_outputs
from ptqbench.cli.setting_options import is_strict, load_settings
from ptqbench.cli.startup import STARTED
from ptqbench.core.phases import Phases
from ptqbench.core.process import exempt_imports_from_collection
from ptqbench.settings.values import literal

if TYPE_CHECKING:
    from ptqbench.backends.artifact import Artifact
    from ptqbench.core.progress import Progress
    from ptqbench.evaluation.float_rivals import FloatRivals
    from ptqbench.evaluation.result import CaseResult, Report
    from ptqbench.evaluation.resume import ResultFolder
    from ptqbench.evaluation.subject import Subject
    from ptqbench.settings.requests import CaseRequest


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="names or wildcards, timm:NAME, or module:function of a custom model; default: every "
        "shipped model",
    )
    parser.add_argument(
        "--artifacts", metavar="DIR", help="keep the int8 and float32 artifacts there"
    )
    add = parser.add_argument
    add(
        "--resume",
        metavar="DIR",
        help="keep the result of each case there as soon as it ends; results that are there and "
        "belong to the same request are not measured again",
    )
    add(
        "--isolate",
        action="store_true",
        help="evaluate each case in a process of its own: if it crashes, the others go on",
    )
    add(
        "--time-limit",
        type=_seconds,
        metavar="SECONDS",
        help="end a case that takes longer and leave it unverified; implies --isolate",
    )
    add_reporting(parser)


_LONGEST_LIMIT = 2_000_000
"""Seconds, 23 days: systems that wait for a process count milliseconds in 31 bits."""


def _seconds(text: str) -> float:
    value = literal(text)
    if not isinstance(value, (int, float)) or not 0 < value <= _LONGEST_LIMIT:
        raise argparse.ArgumentTypeError(
            f"expected a number of seconds above 0, at most {_LONGEST_LIMIT}, but got {text!r}"
        )
    return float(value)


def _run(args: argparse.Namespace) -> int:
    from ptqbench.settings.requests import case_requests

    settings = load_settings(args, args.models)
    requests = case_requests(settings, args.artifacts)
    outputs = report_outputs(args, settings)
    isolated = args.isolate or args.time_limit is not None
    evaluate = _evaluate_isolated if isolated else _evaluate
    phases = Phases()
    report = evaluate(args, requests, phases)
    report = replace(report, phases=phases.records(), wall_seconds=time.perf_counter() - STARTED)
    return conclude(report, outputs, timings=args.timings, strict=is_strict(args, settings))


def _evaluate(args: argparse.Namespace, requests: Sequence[CaseRequest], phases: Phases) -> Report:
    """Evaluate all cases in this process."""
    from ptqbench.measurement.replay import ReplayProcess
    from ptqbench.reporting.progress_display import progress_display

    with (
        ReplayProcess() as fresh,  # it imports torch while this process does
        progress_display(lines=not args.quiet) as progress,
    ):
        if sys.stderr.isatty():
            progress("start", 0, 0)
        from ptqbench.evaluation.run import run_requests

        results = _results(args)
        exempt_imports_from_collection()
        phases.add("start and imports", time.perf_counter() - STARTED)
        compared = any(
            sign in name for each in requests for name in each.backends for sign in "*?["
        )
        answers = _Answers(progress) if compared else None
        report = run_requests(requests, progress, phases, fresh, results, answers)
        return replace(report, notes=(*report.notes, *answers.sentences)) if answers else report


class _Answers:
    """Concludes which file to ship where a wildcard asked for all backends, model by model.

    Args:
        progress: Progress callback.
    """

    def __init__(self, progress: Progress) -> None:
        self.sentences: list[str] = []
        self._progress = progress

    def __call__(
        self,
        subject: Subject,
        rivals: FloatRivals,
        artifacts: Mapping[str, Artifact],
        cases: Mapping[str, CaseResult],
    ) -> None:
        """Time all files of a model in turn, and keep the answer."""
        from ptqbench.evaluation.recommendation import compare
        from ptqbench.reporting.recommendation_view import sentence

        model = subject.recipe.model
        answer = sentence(compare(subject, rivals, artifacts, cases, self._progress))
        self.sentences.append(f"{model}: {answer} `ptqbench recommend {model}` writes that file.")


def _evaluate_isolated(
    args: argparse.Namespace, requests: Sequence[CaseRequest], phases: Phases
) -> Report:
    """Evaluate each case in a process that ends with it."""
    from ptqbench.evaluation.case_process import CaseProcess, run_isolated
    from ptqbench.reporting.progress_display import progress_display

    results = _results(args)
    process = CaseProcess(args.argv, args.time_limit)
    phases.add("start and imports", time.perf_counter() - STARTED)
    return run_isolated(requests, process, progress_display(lines=not args.quiet), phases, results)


def _results(args: argparse.Namespace) -> ResultFolder | None:
    """Return the folder of finished cases, if one is named."""
    if args.resume is None:
        return None
    from ptqbench.evaluation.resume import ResultFolder

    return ResultFolder(args.resume, lambda text: print(f"ptqbench: {text}", file=sys.stderr))


COMMAND = Command(
    "run", " [MODEL ...]", "quantize models and judge the artifacts", _add_arguments, _run
)
