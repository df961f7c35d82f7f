"""The command ``show-config``: show every setting and its origin."""

from __future__ import annotations

import argparse

from ptqbench.cli.command import Command
from ptqbench.cli.setting_options import load_settings


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="names or wildcards; default: as in the settings"
    )


def _show_config(args: argparse.Namespace) -> int:
    from ptqbench.reporting import console
    from ptqbench.reporting.settings_table import settings_view

    settings = load_settings(args, args.models)
    console.show(settings_view(settings, settings.chosen_models()))
    return 0


COMMAND = Command(
    "show-config", " [MODEL ...]", "show every setting and who set it", _add_arguments, _show_config
)
