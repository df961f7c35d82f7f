"""The command ``recipe``: print the recipe of a model."""

from __future__ import annotations

import argparse
import sys

from ptqbench.cli.command import Command, add_keep_float
from ptqbench.cli.setting_options import load_settings, one_request


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a name, timm:NAME, or module:function of a custom model"
    )
    add_keep_float(parser, "modules that stay float32, wildcards allowed, with commas between")


def _recipe(args: argparse.Namespace) -> int:
    from ptqbench.settings.layers import DEFAULT

    settings = load_settings(args, [args.model])
    request = one_request(settings, args.model, "MODEL")
    weights, data = (
        settings.value(key, request.model).origin != DEFAULT for key in ("weights", "data")
    )
    from ptqbench.evaluation.recipe_proposal import propose
    from ptqbench.reporting import console
    from ptqbench.reporting.progress_display import progress_display

    with progress_display() as progress:
        text = propose(
            request,
            weights=weights,
            images=weights and data,
            keep_float=args.keep_float,
            progress=progress,
        )
    console.write(text, sys.stdout)
    return 0


COMMAND = Command(
    "recipe",
    " MODEL",
    "print the recipe of a model, to be saved and edited",
    _add_arguments,
    _recipe,
)
