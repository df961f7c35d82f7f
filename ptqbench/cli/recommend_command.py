"""The command ``recommend``: which file of a model to ship on this CPU."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.cli.command import Command
from ptqbench.cli.setting_options import load_settings, one_request
from ptqbench.cli.startup import STARTED

if TYPE_CHECKING:
    from ptqbench.backends.artifact import Artifact
    from ptqbench.evaluation.float_rivals import FloatRivals
    from ptqbench.evaluation.recommendation import Recommendation
    from ptqbench.evaluation.result import CaseResult, Report
    from ptqbench.evaluation.subject import Subject
    from ptqbench.settings.requests import CaseRequest

FOLDER = "recommended"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="a name, timm:NAME, or module:function of a custom model")
    add(
        "--out",
        metavar="DIR",
        default=FOLDER,
        help="write the recommended file and its model card there; default: %(default)s",
    )
    add("--json", metavar="FILE", help="write the result of all cases there; - is standard output")
    add("--quiet", action="store_true", help="suppress progress lines")


def _recommend(args: argparse.Namespace) -> int:
    from ptqbench.core.paths import user_path
    from ptqbench.settings.layers import RECIPE

    settings = load_settings(args, [args.model])
    request = one_request(settings, args.model, "MODEL")
    if request.origin == RECIPE:
        request = replace(request, backends=("*",), origin="recommend")
    folder = user_path(args.out)
    _check_folder(folder)
    from ptqbench.reporting import console
    from ptqbench.reporting.recommendation_view import recommendation_view

    recommendation, report, file = _measure(args, request, folder)
    console.show(recommendation_view(recommendation), sys.stdout)
    _write(args, recommendation, report, file)
    return 0


def _check_folder(folder: Path) -> None:
    """Check that files can be written to a folder, before an hour is spent."""
    from ptqbench.errors import UserError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out: {folder} cannot be a folder for the recommended file: "
            f"{error.strerror or error}."
        ) from None


def _measure(
    args: argparse.Namespace, request: CaseRequest, folder: Path
) -> tuple[Recommendation, Report, Path]:
    """Judge all candidates, select one, and copy its files to the folder."""
    from ptqbench.core.phases import Phases
    from ptqbench.errors import UserError
    from ptqbench.evaluation.recommendation import compare
    from ptqbench.evaluation.run import run_requests
    from ptqbench.reporting.progress_display import progress_display

    phases = Phases()
    phases.add("start and imports", time.perf_counter() - STARTED)
    answers: list[tuple[Recommendation, Path]] = []
    with progress_display(lines=not args.quiet) as progress:

        def conclude(
            subject: Subject,
            rivals: FloatRivals,
            artifacts: Mapping[str, Artifact],
            cases: Mapping[str, CaseResult],
        ) -> None:
            recommendation = compare(subject, rivals, artifacts, cases, progress)
            answers.append((recommendation, recommendation.choice.copy_to(folder)))

        report = run_requests([request], progress, phases, conclude=conclude)
    if not answers:
        raise UserError(
            f"No backend can run {request.model} here. ptqbench list says what each of them needs."
        )
    recommendation, file = answers[0]
    return recommendation, report, file


def _write(
    args: argparse.Namespace, recommendation: Recommendation, report: Report, file: Path
) -> None:
    """Write the model card, and the result if it is asked for."""
    from ptqbench.core.atomic import write_text
    from ptqbench.core.paths import user_path
    from ptqbench.reporting.json_report import to_json
    from ptqbench.reporting.model_card import model_card

    command = shlex.join(["ptqbench", *args.argv])
    card = file.with_name(f"{file.name}.md")
    write_text(model_card(recommendation, report, command, file), card)
    print(f"\n{file}\n{card}")
    if args.json == "-":
        print(to_json(report))
    elif args.json is not None:
        write_text(to_json(report), user_path(args.json))


COMMAND = Command(
    "recommend",
    " MODEL",
    "try every installed runtime, float32 and int8, and say which file to ship",
    _add_arguments,
    _recommend,
)
