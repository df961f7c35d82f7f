"""The parser of the command line, and its answers to arguments that it does not accept."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from typing import NoReturn

from ptqbench.cli import (
    gate_command,
    inspect_command,
    list_command,
    migrate_command,
    predict_command,
    recipe_command,
    recommend_command,
    run_command,
    show_config_command,
)
from ptqbench.cli.exit_codes import EXIT_CODES, USAGE_ERROR
from ptqbench.cli.setting_options import add_setting_options

COMMANDS = tuple(
    module.COMMAND
    for module in (
        run_command,
        gate_command,
        inspect_command,
        recommend_command,
        migrate_command,
        predict_command,
        recipe_command,
        list_command,
        show_config_command,
    )
)

_DESCRIPTION = """\
May this quantized model ship? Quantizes classifiers after training and puts the int8
artifact through gates against its float32 original."""

_EXAMPLES = """\
examples:
  ptqbench run
  ptqbench run resnet18 mobilenet_v2 --backend x86 --backend onednn --json result.json
  ptqbench run resnet18 --weights mine.safetensors --data photos --resize 64 --crop 64
  ptqbench gate --model resnet18 --weights mine.safetensors --artifact int8.pt --data photos
  ptqbench inspect int8.onnx
  ptqbench recommend resnet18 --weights mine.safetensors --data photos
  ptqbench migrate resnet18 --weights mine.safetensors --data photos
  ptqbench predict photo.jpg --model resnet18 --backend x86
  ptqbench recipe my_net --plugin my_package.quant > my_net.recipe.toml
  ptqbench list
  ptqbench show-config resnet18
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; the chosen command is parsed as ``command``."""
    parser = _Parser(
        prog="ptqbench",
        description=_DESCRIPTION,
        epilog=f"{_exit_codes()}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    group = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        summary = command.summary
        child = group.add_parser(
            command.name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            usage=f"ptqbench {command.name}{command.usage} [options]",
            allow_abbrev=False,
        )
        child.set_defaults(command=command)
        command.add_arguments(child)
        if command.settings:
            add_setting_options(child, command.name)
    return parser


def _exit_codes() -> str:
    rows = [
        textwrap.fill(meaning, 95, initial_indent=f"  {code:<5}", subsequent_indent=" " * 7)
        for code, meaning in EXIT_CODES.items()
    ]
    return "\n".join(["exit codes:", *rows])


class _Version(argparse.Action):
    """Looks the version up only if it is requested."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from ptqbench.core.version import package_version

        print(f"ptqbench {package_version()}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the nearest option or command."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and what was probably meant, and exit."""
        self.print_usage(sys.stderr)
        self.exit(USAGE_ERROR, f"ptqbench: error: {message}{self._hint(message)}\n")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse, and refuse unknown options here, where the nearest ones can be suggested."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def _hint(self, message: str) -> str:
        if message.startswith("unrecognized arguments: "):
            unknown = [word.partition("=")[0] for word in message.split()[2:]]
        elif "invalid choice: " in message:
            unknown = [message.partition("invalid choice: ")[2].split("'")[1]]
        else:
            return ""
        known = list(self._option_string_actions)
        for action in self._actions:
            known += [str(choice) for choice in action.choices or ()]
        close = (difflib.get_close_matches(word, known, n=1, cutoff=0.6) for word in unknown)
        names = dict.fromkeys(name for names in close for name in names)
        return f". Did you mean {' and '.join(names)}?" if names else ""
