"""What the command line takes, and what it says to arguments that it does not."""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

Command = Callable[[argparse.Namespace], int]
"""What runs a command; it returns the exit code."""

_DESCRIPTION = """\
May this quantized model ship? Quantizes classifiers after training and puts the int8
artifact through gates against its float32 original."""

_EPILOG = """\
exit codes:
  0  no gate failed
  1  a gate failed
  2  wrong use, configuration or input; said before anything is measured
  3  nothing failed, but something is inconclusive or unverified (only with --strict)

examples:
  ptqbench run
  ptqbench run resnet18 mobilenet_v2 --backend x86 --backend onednn --json result.json
  ptqbench run resnet18 --weights mine.safetensors --data photos --resize 64 --crop 64
  ptqbench predict photo.jpg --model resnet18 --backend x86
  ptqbench list
"""


def build_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        commands: What runs ``run``, ``predict`` and ``list``; it is parsed as ``command``.
    """
    parser = _Parser(
        prog="ptqbench",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    group = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, add, takes, text in (
        ("run", _add_run, " [MODEL ...]", "quantize models and judge the artifacts"),
        ("predict", _add_predict, " IMAGE --model NAME", "top-5 of one image, float32 beside int8"),
        ("list", _add_list, "", "show models, weights, recipes and backends"),
    ):
        child = group.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            usage=f"ptqbench {name}{takes} [options]",
            allow_abbrev=False,
        )
        child.set_defaults(command=commands[name])
        add(child)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="default: every shipped model")
    add(
        "--backend",
        action="append",
        metavar="NAME",
        help="repeat for several; default: the one that each recipe recommends",
    )
    add("--json", metavar="FILE", help="write the result there; - is standard output")
    add("--artifacts", metavar="DIR", help="keep the int8 and float32 artifacts there")
    add("--strict", action="store_true", help="exit 3 if anything is inconclusive or unverified")
    add("--timings", action="store_true", help="show where the time went")
    _add_sources(parser)
    measuring = parser.add_argument_group("measuring latency")
    measuring.add_argument(
        "--input-size",
        type=_positive,
        metavar="N",
        help="height and width; default: the standard size of the model",
    )
    measuring.add_argument(
        "--batch-size", type=_positive, default=1, metavar="N", help="default: 1"
    )
    measuring.add_argument(
        "--threads", type=_positive, metavar="N", help="default: all physical cores"
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="a photograph")
    parser.add_argument("--model", required=True, metavar="NAME")
    parser.add_argument("--backend", metavar="NAME", help="default: the recipe's recommendation")
    _add_sources(parser)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")


def _add_sources(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_argument_group("weights and images")
    add = sources.add_argument
    add(
        "--weights",
        default="fixture",
        metavar="FILE",
        help="safetensors or a plain state dict; default: the shipped fixture weights",
    )
    add(
        "--data",
        default="fixture",
        metavar="DIR",
        help="one folder of images per class, or train/ and val/ of such; default: fixture images",
    )
    add("--seed", type=_natural, default=0, metavar="N", help="of every random choice; default: 0")
    add("--cache-dir", metavar="DIR", help="where generated images are kept")
    preprocessing = parser.add_argument_group(
        "preprocessing and classes", "by default those of FILE.json beside the weights"
    )
    add = preprocessing.add_argument
    add("--resize", type=_positive, metavar="N", help="shorter side in pixels before the crop")
    add("--crop", type=_positive, metavar="N", help="side of the central crop in pixels")
    add("--mean", type=_three, metavar="R,G,B", help="of the channels, as fractions of 1")
    add("--std", type=_three_positive, metavar="R,G,B", help="of the channels, as fractions of 1")
    add("--interpolation", metavar="NAME", help="nearest, bilinear, bicubic or lanczos")
    add(
        "--classes",
        type=_classes,
        metavar="NAMES",
        help="a text file with one name a line, or names with commas between; in output order",
    )


class _Version(argparse.Action):
    """Looks the version up only if it is asked for."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from ptqbench.reporting.version import package_version

        print(f"ptqbench {package_version()}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the nearest option or command."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and what was probably meant, and exit with 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"ptqbench: error: {message}{self._hint(message)}\n")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse, but refuse what is unknown here, where the nearest options are known."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def _hint(self, message: str) -> str:
        if message.startswith("unrecognized arguments: "):
            wrong = [word.partition("=")[0] for word in message.split()[2:]]
        elif "invalid choice: " in message:
            wrong = [message.partition("invalid choice: ")[2].split("'")[1]]
        else:
            return ""
        known = list(self._option_string_actions)
        for action in self._actions:
            known += [str(choice) for choice in action.choices or ()]
        close = (difflib.get_close_matches(word, known, n=1, cutoff=0.6) for word in wrong)
        names = dict.fromkeys(name for names in close for name in names)
        return f". Did you mean {' and '.join(names)}?" if names else ""


def _positive(text: str) -> int:
    value = _natural(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be at least 1, but got 0")
    return value


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, but got {text!r}")
    return int(text)


def _three(text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be three numbers like 0.485,0.456,0.406, but got {text!r}"
        ) from None
    if not all(map(math.isfinite, (red, green, blue))):
        raise argparse.ArgumentTypeError(f"must be finite numbers, but got {text!r}")
    return red, green, blue


def _three_positive(text: str) -> tuple[float, float, float]:
    values = _three(text)
    if min(values) <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text!r}")
    return values


def _classes(text: str) -> tuple[str, ...]:
    path = Path(text)
    if "," in text:
        names = text.split(",")
    elif path.is_file():
        try:
            names = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise argparse.ArgumentTypeError(f"cannot read {path}: {error}") from None
    else:
        raise argparse.ArgumentTypeError(
            f"must be a text file or names with commas between, but there is no file {text!r}"
        )
    names = [name.strip() for name in names if name.strip()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise argparse.ArgumentTypeError(f"names {', '.join(repeated)} more than once")
    if not names:
        raise argparse.ArgumentTypeError("names no class")
    return tuple(names)
