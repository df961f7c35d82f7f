"""The command ``run``: quantize models and judge the artifacts."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from ptqbench.cli.command import Command, add_reporting
from ptqbench.cli.report_output import conclude, report_outputs
from ptqbench.cli.setting_options import is_strict, load_settings
from ptqbench.cli.startup import STARTED
from ptqbench.core.process import exempt_imports_from_collection


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="names or wildcards, or module:function of a custom model; default: every shipped "
        "model",
    )
    parser.add_argument(
        "--artifacts", metavar="DIR", help="keep the int8 and float32 artifacts there"
    )
    add_reporting(parser)


def _run(args: argparse.Namespace) -> int:
    from ptqbench.settings.requests import case_requests

    settings = load_settings(args, args.models)
    requests = case_requests(settings, args.artifacts)
    outputs = report_outputs(args, settings)
    from ptqbench.measurement.replay import ReplayProcess

    with ReplayProcess() as fresh:  # it imports torch while this process does
        from ptqbench.core.phases import Phases
        from ptqbench.evaluation.run import run_requests
        from ptqbench.reporting.progress_display import progress_display

        exempt_imports_from_collection()
        phases = Phases()
        phases.add("start and imports", time.perf_counter() - STARTED)
        with progress_display(lines=not args.quiet) as progress:
            report = run_requests(requests, progress, phases, fresh)
    report = replace(report, phases=phases.records(), wall_seconds=time.perf_counter() - STARTED)
    return conclude(report, outputs, timings=args.timings, strict=is_strict(args, settings))


COMMAND = Command(
    "run", " [MODEL ...]", "quantize models and judge the artifacts", _add_arguments, _run
)
