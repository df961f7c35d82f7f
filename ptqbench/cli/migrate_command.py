"""The command ``migrate``: a model of torch.ao's quantization in the other runtimes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from ptqbench.cli.command import Command
from ptqbench.cli.concluded_run import run_concluded
from ptqbench.cli.setting_options import load_settings, one_request


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="a name, timm:NAME, or module:function of a custom model")
    add("--json", metavar="FILE", help="write the result of all cases there; - is standard output")
    add("--quiet", action="store_true", help="suppress progress lines")


def _migrate(args: argparse.Namespace) -> int:
    from ptqbench.core.atomic import write_text
    from ptqbench.core.paths import user_path
    from ptqbench.settings.layers import RECIPE

    settings = load_settings(args, [args.model])
    request = one_request(settings, args.model, "MODEL")
    from ptqbench.evaluation.migration import backends_to_compare, migrate
    from ptqbench.recipes import RECIPES

    if request.origin == RECIPE:
        names = backends_to_compare(RECIPES.get(request.model))
        request = replace(request, backends=names, origin="migrate")
    migration, report = run_concluded(args, request, migrate)
    from ptqbench.reporting import console
    from ptqbench.reporting.json_report import to_json
    from ptqbench.reporting.migration_view import migration_view

    console.show(migration_view(migration, report), sys.stdout)
    if args.json == "-":
        print(to_json(report))
    elif args.json is not None:
        write_text(to_json(report), user_path(args.json))
    return 0


COMMAND = Command(
    "migrate",
    " MODEL",
    "compare a model's int8 file of torch.ao with those of the other runtimes",
    _add_arguments,
    _migrate,
)
