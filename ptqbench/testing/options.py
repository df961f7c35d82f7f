"""The plugin's options, derived from the table of settings, and what they set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from ptqbench.errors import UserError
from ptqbench.settings.layers import COMMAND_LINE, Layer
from ptqbench.settings.parsing import parse_table, parse_thresholds
from ptqbench.settings.schema import SETTINGS

REPORT_OPTION = "--ptqbench-report"
THRESHOLD_OPTION = "--ptqbench-threshold"
CONFIG_OPTION = "--ptqbench-config"


_CONFIG_HELP = (
    "read the settings from this file; default: the nearest ptqbench.toml, or pyproject.toml with "
    "[tool.ptqbench]"
)
_FURTHER_OPTIONS: tuple[tuple[str, str, str, str], ...] = (
    (
        THRESHOLD_OPTION,
        "append",
        "NAME=VALUE",
        "replace a threshold, like accuracy=0.985 or max_bytes=3MiB; repeat for several",
    ),
    (REPORT_OPTION, "append", "FORMAT=PATH", "write json=PATH or markdown=PATH; repeat for both"),
    (CONFIG_OPTION, "store", "FILE", _CONFIG_HELP),
    (
        "--ptqbench-update",
        "store_true",
        "",
        "rewrite the committed references with what is measured now",
    ),
)
"""Options that do not belong to one setting: flag, action, metavar and help."""


def _options() -> Iterator[tuple[str, str, str, str]]:
    for setting in SETTINGS.values():
        if (option := setting.pytest) is not None:
            action = "append" if option.listed else "store"
            yield option.flag, action, option.metavar, option.help or setting.full_help
    yield from _FURTHER_OPTIONS


def add_options(parser: pytest.Parser) -> None:
    """Add the options, in one group."""
    group = parser.getgroup("ptqbench", "release gates for quantized models")
    for flag, action, metavar, text in _options():
        details = {"metavar": metavar} if metavar else {}
        group.addoption(flag, action=action, help=text.replace("%", "%%"), **details)


def options_table() -> list[tuple[str, str]]:
    """Return each option with its metavar, and its help."""
    return [(f"{flag} {metavar}".strip(), text) for flag, _, metavar, text in _options()]


def command_line(config: pytest.Config) -> Layer:
    """Return the settings that the options of a session set.

    Raises:
        UserError: An option's value is wrong.
    """
    get = config.getoption
    folder = config.invocation_params.dir
    values: dict[str, object] = {}
    origins: dict[str, str] = {}

    def add(parsed: Mapping[str, object], option: str) -> None:
        values.update(parsed)
        origins.update(dict.fromkeys(parsed, option))

    for setting in SETTINGS.values():
        option = setting.pytest
        text = None if option is None else get(option.dest)
        if option is None or text is None:
            continue
        value = text if option.listed else setting.type.from_text(text)
        if option.listed:
            value = [name for part in text for name in part.split(",")]
        add(parse_table({setting.key: value}, folder, option.flag), option.flag)
    for text in get("ptqbench_report") or ():
        kind, equals, path = text.partition("=")
        if not equals or not path:
            raise UserError(f"{REPORT_OPTION} takes json=PATH or markdown=PATH, but got {text!r}.")
        add(parse_table({"report": {kind: path}}, folder, REPORT_OPTION), REPORT_OPTION)
    texts = get("ptqbench_threshold") or ()
    add(parse_thresholds(texts, THRESHOLD_OPTION), THRESHOLD_OPTION)
    return Layer(COMMAND_LINE, values, origins)
