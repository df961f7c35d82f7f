"""The command ``gate``: judge an int8 file."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from ptqbench.cli.command import Command, add_keep_float, add_reporting
from ptqbench.cli.report_output import conclude, report_outputs
from ptqbench.cli.setting_options import is_strict, load_settings, one_request
from ptqbench.cli.startup import STARTED
from ptqbench.core.paths import user_path


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="the float32 model of the file"
    )
    parser.add_argument(
        "--artifact",
        required=True,
        metavar="FILE",
        help="the int8 file: TorchScript (.pt) or ONNX (.onnx), of any tool; it is loaded and run",
    )
    add_keep_float(
        parser,
        "modules that are meant to stay float32, wildcards allowed, with commas between",
    )
    add_reporting(parser)


def _gate(args: argparse.Namespace) -> int:
    from ptqbench.backends.backend_registry import recognize
    from ptqbench.settings.requests import one_backend

    artifact = user_path(args.artifact)
    recognize(artifact)
    settings = load_settings(args, [args.model])
    request = one_request(settings, args.model)
    outputs = report_outputs(args, settings)
    from ptqbench.core.phases import Phases
    from ptqbench.evaluation import foreign
    from ptqbench.reporting.progress_display import progress_display

    phases = Phases()
    phases.add("start and imports", time.perf_counter() - STARTED)
    with progress_display(lines=not args.quiet) as progress:
        report = foreign.gate(
            request.model,
            artifact,
            one_backend(request),
            request.settings,
            keep_float=args.keep_float or (),
            progress=progress,
            phases=phases,
        )
    report = replace(report, phases=phases.records(), wall_seconds=time.perf_counter() - STARTED)
    return conclude(report, outputs, timings=args.timings, strict=is_strict(args, settings))


COMMAND = Command(
    "gate",
    " --model NAME --artifact FILE",
    "judge an int8 file, foreign ones too",
    _add_arguments,
    _gate,
)
