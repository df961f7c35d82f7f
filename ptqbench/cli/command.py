"""The record of a command, and arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from ptqbench.settings.values import ValueType, names_in_text


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: As it is typed.
        usage: Required arguments, for the usage line.
        summary: One line of help.
        add_arguments: Adds its arguments to a parser, without the options of settings.
        run: Runs it and returns the exit code.
        settings: Whether it reads settings, which may come from a file.
    """

    name: str
    usage: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    settings: bool = True


def argument_type(type_: ValueType) -> Callable[[str], object]:
    """Return a converter for argparse that accepts what a type of settings accepts."""
    return _converter(type_.check_text)


def _converter(convert: Callable[[str], object]) -> Callable[[str], object]:
    def converted(text: str) -> object:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected {error}, but got {text!r}") from None

    return converted


def add_keep_float(parser: argparse.ArgumentParser, help_: str) -> None:
    """Add ``--keep-float``; if it is missing, its value is None."""
    parser.add_argument("--keep-float", type=_converter(names_in_text), metavar="NAMES", help=help_)


def add_reporting(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where and how a report is shown."""
    add = parser.add_argument
    add("--json", metavar="FILE", help="write the result there; - is standard output")
    add(
        "--strict",
        action=argparse.BooleanOptionalAction,
        help="exit 3 if anything is inconclusive or unverified; default: under the profile ci",
    )
    add("--timings", action="store_true", help="show where the time went")
    add(
        "--quiet",
        action="store_true",
        help="suppress progress lines when stderr is not a terminal",
    )
