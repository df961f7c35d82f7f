"""The command ``recommend``: which file of a model to ship on this CPU."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.cli.command import Command
from ptqbench.cli.concluded_run import run_concluded
from ptqbench.cli.setting_options import load_settings, one_request

if TYPE_CHECKING:
    from ptqbench.backends.artifact import Artifact
    from ptqbench.core.progress import Progress
    from ptqbench.evaluation.float_rivals import FloatRivals
    from ptqbench.evaluation.recommendation import Recommendation
    from ptqbench.evaluation.result import CaseResult, Report
    from ptqbench.evaluation.subject import Subject

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
    from ptqbench.evaluation.recommendation import compare
    from ptqbench.reporting import console
    from ptqbench.reporting.recommendation_view import recommendation_view

    def conclusion(
        subject: Subject,
        rivals: FloatRivals,
        artifacts: Mapping[str, Artifact],
        cases: Mapping[str, CaseResult],
        progress: Progress,
    ) -> tuple[Recommendation, Path]:
        recommendation = compare(subject, rivals, artifacts, cases, progress)
        return recommendation, recommendation.choice.copy_to(folder)

    (recommendation, file), report = run_concluded(args, request, conclusion)
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
