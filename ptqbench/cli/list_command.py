"""The command ``list``: show models, weights, recipes and backends."""

from __future__ import annotations

import argparse
import sys

from ptqbench.cli.command import Command
from ptqbench.cli.setting_options import load_settings


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="only these: names or wildcards, timm:lcnet* too"
    )
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")


def _list(args: argparse.Namespace) -> int:
    from ptqbench.evaluation import inventory
    from ptqbench.reporting import console
    from ptqbench.reporting.inventory_table import inventory_view, models_view

    settings = load_settings(args, args.models)  # registers custom models
    everything = inventory.inventory()
    if args.models:
        everything = everything.only(settings.chosen_models())
    if args.json:
        console.write(everything.to_json(), sys.stdout)
    else:
        console.show(models_view(everything) if args.models else inventory_view(everything))
    return 0


COMMAND = Command(
    "list", " [MODEL ...]", "show models, weights, recipes and backends", _add_arguments, _list
)
