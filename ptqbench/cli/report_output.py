"""Show a report and write it to files; no failure prevents the rest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.cli.exit_codes import USAGE_ERROR
from ptqbench.core.atomic import check_writable
from ptqbench.core.names import printable
from ptqbench.core.paths import user_path

if TYPE_CHECKING:
    from ptqbench.evaluation.result import Report
    from ptqbench.settings.layers import Settings


def report_outputs(args: argparse.Namespace, settings: Settings) -> dict[str, Path | None]:
    """Return where the report is written, by format; None, for JSON, is standard output.

    Raises:
        UserError: A file cannot be written.
    """
    outputs: dict[str, Path | None] = {}
    for kind in ("json", "markdown"):
        if (path := settings.value(f"report.{kind}").value) is not None:
            outputs[kind] = path
    if args.json is not None:
        outputs["json"] = None if args.json == "-" else user_path(args.json)
    for path in filter(None, outputs.values()):
        check_writable(path)
    return outputs


def present(report: Report, outputs: Mapping[str, Path | None], *, timings: bool) -> list[str]:
    """Show the report on the screen, then write it to files; no failure prevents the rest.

    Args:
        report: The measurements and verdicts of a run.
        outputs: From `report_outputs`.
        timings: Whether to show where the time went.

    Returns:
        What could not be written, one sentence for each.
    """
    from ptqbench.reporting import console, json_report, terminal, timings_table
    from ptqbench.reporting.report_files import write_reports

    json_alone = "json" in outputs and outputs["json"] is None
    screen = sys.stderr if json_alone else sys.stdout
    failures: list[str] = []

    def show(what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            failures.append(f"Cannot write {what}: {error.strerror or error}.")

    def show_screen() -> None:
        console.show(terminal.report_view(report, console.width_of(screen)), screen)
        if timings and report.wall_seconds is not None:
            view = timings_table.timings_view(report.phases, report.wall_seconds)
            console.show(view, screen)

    show("the report to the screen", show_screen)
    if json_alone:
        text = json_report.to_json(report)
        show("JSON to standard output", lambda: console.write(text, sys.stdout))
    files = {kind: path for kind, path in outputs.items() if path is not None}
    return failures + write_reports(report, files)


def print_error(sentence: str) -> None:
    """Print an error message on standard error, names that are not UTF-8 escaped."""
    print(f"ptqbench: error: {printable(sentence)}", file=sys.stderr)


def conclude(
    report: Report, outputs: Mapping[str, Path | None], *, timings: bool, strict: bool
) -> int:
    """Present a report and return the exit code of the command.

    Returns:
        2 if the report could not be written everywhere, else that of the verdicts.
    """
    failures = present(report, outputs, timings=timings)
    for sentence in failures:
        print_error(sentence)
    return USAGE_ERROR if failures else report.exit_code(strict)
