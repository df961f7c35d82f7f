"""Options of commands that set settings, derived from the table of settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.cli.command import argument_type
from ptqbench.core.paths import user_path
from ptqbench.errors import UserError
from ptqbench.settings.parsing import parse_table, parse_thresholds
from ptqbench.settings.schema import GROUPS, SETTINGS
from ptqbench.settings.setting import OPENING

if TYPE_CHECKING:
    from ptqbench.settings.layers import Settings
    from ptqbench.settings.requests import CaseRequest

_THRESHOLD_COMMANDS = ("run", "gate", "recommend", "migrate")


def add_setting_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of a command that set settings.

    Args:
        parser: Of the command.
        command: Its name.
    """
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="read the settings from this file; default: the nearest ptqbench.toml, or "
        "pyproject.toml with [tool.ptqbench]",
    )
    groups: dict[str, argparse.ArgumentParser | argparse._ArgumentGroup] = {"": parser}
    for title, description in GROUPS.items():
        groups[title] = parser.add_argument_group(title, description or None)
    if command in _THRESHOLD_COMMANDS:
        groups["thresholds"].add_argument(
            "--threshold",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="like accuracy=0.985, accuracy_points=1, top5=0.99, sqnr_db=25, agreement=0.97, "
            "size_ratio=3.5 or speedup.avx2=1.5; repeat for several (docs/gates.md)",
        )
    for setting in SETTINGS.values():
        if (option := setting.option(command)) is not None:
            groups[option.group].add_argument(
                option.flag,
                action="append" if option.repeatable else "store",
                type=str if setting.type.check_exists else argument_type(setting.type),
                metavar=option.metavar,
                help=(option.help or setting.full_help).replace("%", "%%"),
            )
    if command in OPENING:
        groups["weights and images"].add_argument(
            "--cache-dir", metavar="DIR", help="cache of generated images"
        )


def load_settings(args: argparse.Namespace, models: Sequence[str] = ()) -> Settings:
    """Read the settings that apply in the working folder, with the options over them.

    The custom models that they name are registered.

    Args:
        args: Parsed command line; an option that is missing is None.
        models: Names or wildcards on the command line.

    Raises:
        UserError: The file with the settings is wrong or belongs to another user, weights or
            data do not exist, or a module with models cannot be imported.
    """
    from ptqbench.models.custom.importing import prepare
    from ptqbench.recipes.recipe_catalog import CATALOG
    from ptqbench.settings.discovery import check_owner, check_paths, load
    from ptqbench.settings.layers import COMMAND_LINE, Layer

    values: dict[str, object] = {}
    origins: dict[str, str] = {}

    def add(parsed: Mapping[str, object], origin: str) -> None:
        values.update(parsed)
        origins.update(dict.fromkeys(parsed, origin))

    if models:
        add(parse_table({"models": list(models)}, Path(), "the command line"), COMMAND_LINE)
    if texts := getattr(args, "threshold", None):
        add(parse_thresholds(texts, "--threshold"), "--threshold")
    for setting in SETTINGS.values():
        option = setting.option(args.command.name)
        value = None if option is None else getattr(args, option.dest, None)
        if option is not None and value is not None:
            if setting.type.check_exists is not None:
                setting.type.check_exists(value, "")
            add(parse_table({setting.key: value}, Path(), option.flag), option.flag)
    if getattr(args, "cache_dir", None) is not None:
        # Through the environment it also reaches processes that generate images.
        os.environ["PTQBENCH_CACHE"] = args.cache_dir
    file = None if args.config is None else user_path(args.config)
    settings = load(Path.cwd(), CATALOG, Layer(COMMAND_LINE, values, origins), file=file)
    if file is None:
        check_owner(settings)
    check_paths(settings)
    prepare(settings)
    return settings


def is_strict(args: argparse.Namespace, settings: Settings) -> bool:
    """Return whether inconclusive and unverified verdicts lead to a separate exit code."""
    if args.strict is None:
        return bool(settings.value("profile").value == "ci")
    return bool(args.strict)


def one_request(settings: Settings, model: str, option: str = "--model") -> CaseRequest:
    """Return the request of a command that takes one model.

    Args:
        settings: As they apply.
        model: As the user wrote it.
        option: Where, for the message.

    Raises:
        UserError: The name is a wildcard for several, or there is no such model.
    """
    from ptqbench.settings.requests import case_requests

    chosen = case_requests(settings)
    if len(chosen) > 1:
        raise UserError(f"{option} takes one name, but {model} matches several. Name one.")
    return chosen[0]
