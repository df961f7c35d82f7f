"""The process of a single case: runs it as the command line says, and writes its report."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ptqbench.cli import sentence_of
from ptqbench.cli.exit_codes import USAGE_ERROR
from ptqbench.cli.parser import build_parser
from ptqbench.cli.setting_options import load_settings
from ptqbench.core.atomic import write_text
from ptqbench.core.process import end_with
from ptqbench.core.user_code import describe_error


def work() -> NoReturn:
    """Read a task from standard input: ``argv``, ``model``, ``backend``, ``file``."""
    task = json.load(sys.stdin)
    end_with(lambda: _work(task))


def _work(task: Mapping[str, Any]) -> int:
    with suppress(OSError):  # if memory runs out, this process is ended and not the run
        Path("/proc/self/oom_score_adj").write_text("1000")
    content: dict[str, object]
    try:
        content, code = _report(task), 0
    except Exception as error:
        sentence = sentence_of(error)
        code = USAGE_ERROR if sentence is not None else 1
        if sentence is None:
            traceback.print_exc()
            sentence = f"It ended with {describe_error(error)}."
        content = {"error": sentence}
    write_text(json.dumps(content), Path(task["file"]))
    return code


def _report(task: Mapping[str, Any]) -> dict[str, object]:
    from ptqbench.settings.requests import case_requests

    args = build_parser().parse_args(task["argv"])
    settings = load_settings(args, args.models)
    requests = {each.model: each for each in case_requests(settings, args.artifacts)}
    request = replace(requests[task["model"]], backends=(task["backend"],))
    from ptqbench.measurement.replay import ReplayProcess

    with ReplayProcess() as fresh:
        from ptqbench.core.phases import Phases
        from ptqbench.core.process import exempt_imports_from_collection
        from ptqbench.evaluation.run import run_requests
        from ptqbench.reporting.progress_display import progress_display

        exempt_imports_from_collection()
        phases = Phases()
        with progress_display(lines=not args.quiet) as progress:
            report = run_requests([request], progress, phases, fresh)
    return replace(report, phases=phases.records()).to_dict()
