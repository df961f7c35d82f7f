"""The command ``inspect``: look at a quantized file alone.

Files of ONNX and OpenVINO are read without torch and without their runtime.
"""

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
        help="a file of any tool, such as .onnx, .xml or .pt; it is not run",
    )
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")


def _inspect(args: argparse.Namespace) -> int:
    from ptqbench.inspection.formats import ENDINGS, inspect_file
    from ptqbench.reporting import console
    from ptqbench.reporting.inspection_view import inspection_view

    path = user_path(args.file)
    if path.suffix.lower() in (*ENDINGS, ".bin"):
        inspection = inspect_file(path)
    else:
        from ptqbench.evaluation.graph_inspection import inspect_graph

        inspection = inspect_graph(path)
    if args.json:
        text = json.dumps(inspection.to_dict(), indent=2, ensure_ascii=False)
        console.write(f"{text}\n", sys.stdout)
    else:
        console.show(inspection_view(inspection))
    return int(inspection.has_errors)


COMMAND = Command(
    "inspect",
    " FILE",
    "look at a quantized file alone, without images and without running it",
    _add_arguments,
    _inspect,
    settings=False,
)
