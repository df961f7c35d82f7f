"""The command ``list``: show models, weights, recipes and backends."""

from __future__ import annotations

import argparse
import sys

from ptqbench.cli.command import Command
from ptqbench.cli.setting_options import load_settings


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")


def _list(args: argparse.Namespace) -> int:
    from ptqbench.evaluation import inventory
    from ptqbench.reporting import console
    from ptqbench.reporting.inventory_table import inventory_view

    load_settings(args)  # registers custom models
    everything = inventory.inventory()
    if args.json:
        console.write(everything.to_json(), sys.stdout)
    else:
        console.show(inventory_view(everything))
    return 0


COMMAND = Command("list", "", "show models, weights, recipes and backends", _add_arguments, _list)
