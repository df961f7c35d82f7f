"""Write a report to several files; a failure does not prevent the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ptqbench.core.atomic import write_text
from ptqbench.errors import UserError
from ptqbench.evaluation.result import Report
from ptqbench.reporting.json_report import to_json
from ptqbench.reporting.markdown import to_markdown

_FORMATS = {"json": to_json, "markdown": to_markdown}


def write_reports(report: Report, files: Mapping[str, Path]) -> list[str]:
    """Write a report in every format with a file.

    Args:
        report: The measurements and verdicts of a run.
        files: Destinations by format: ``json`` and ``markdown``.

    Returns:
        A sentence for each file that could not be written.
    """
    failures = []
    for kind, path in files.items():
        try:
            write_text(_FORMATS[kind](report), path)
        except UserError as error:
            failures.append(str(error))
    return failures
