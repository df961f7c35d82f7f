"""The command ``inspect``: look at a quantized file alone."""

from __future__ import annotations

import argparse
import json
import sys

from ptqbench.cli.command import Command
from ptqbench.core.paths import user_path


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="an ONNX or OpenVINO file (.onnx, .xml) of any tool; it is not run",
    )
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")


def _inspect(args: argparse.Namespace) -> int:
    from ptqbench.inspection.formats import inspect_file
    from ptqbench.reporting import console
    from ptqbench.reporting.inspection_view import inspection_view

    inspection = inspect_file(user_path(args.file))
    if args.json:
        text = json.dumps(inspection.to_dict(), indent=2, ensure_ascii=False)
        console.write(f"{text}\n", sys.stdout)
    else:
        console.show(inspection_view(inspection))
    return int(inspection.has_errors)


COMMAND = Command(
    "inspect",
    " FILE",
    "look at a quantized ONNX or OpenVINO file alone, without images, torch, or running it",
    _add_arguments,
    _inspect,
    settings=False,
)
