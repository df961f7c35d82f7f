"""What the command line takes, and what it says to arguments that it does not."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from ptqbench.settings import argument_types as types

Command = Callable[[argparse.Namespace], int]
"""What runs a command; it returns the exit code."""

_DESCRIPTION = """\
May this quantized model ship? Quantizes classifiers after training and puts the int8
artifact through gates against its float32 original."""

_EPILOG = """\
exit codes:
  0  no gate failed
  1  a gate failed
  2  usage, configuration or input error (reported before measuring where possible), or the
     report could not be written everywhere (after the verdicts have been shown)
  3  nothing failed, but something is inconclusive or unverified (only with --strict)

examples:
  ptqbench run
  ptqbench run resnet18 mobilenet_v2 --backend x86 --backend onednn --json result.json
  ptqbench run resnet18 --weights mine.safetensors --data photos --resize 64 --crop 64
  ptqbench gate --model resnet18 --weights mine.safetensors --artifact int8.pt --data photos
  ptqbench predict photo.jpg --model resnet18 --backend x86
  ptqbench recipe my_net --plugin my_package.quant > my_net.recipe.toml
  ptqbench list
  ptqbench show-config resnet18
"""


def build_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        commands: What runs ``run``, ``gate``, ``predict``, ``recipe``, ``list`` and
            ``show-config``; it is parsed as ``command``.
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
        (
            "gate",
            _add_gate,
            " --model NAME --artifact FILE",
            "judge an int8 TorchScript file, whoever made it",
        ),
        ("predict", _add_predict, " IMAGE --model NAME", "top-5 of one image, float32 beside int8"),
        ("recipe", _add_recipe, " MODEL", "print the recipe of a model, to be saved and edited"),
        ("list", _add_list, "", "show models, weights, recipes and backends"),
        ("show-config", _add_show_config, " [MODEL ...]", "show every setting and who set it"),
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
    add(
        "models",
        nargs="*",
        metavar="MODEL",
        help="names or wildcards, or module:function of your own; default: every shipped model",
    )
    _add_plugins(parser)
    add(
        "--backend",
        action="append",
        metavar="NAME",
        help="repeat for several; default: the one that each recipe recommends",
    )
    add("--artifacts", metavar="DIR", help="keep the int8 and float32 artifacts there")
    _add_reporting(parser)
    _add_sources(parser, from_settings=True)
    _add_thresholds(parser)
    _add_measuring(parser)


def _add_gate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="what the file was made from")
    _add_plugins(parser)
    add(
        "--artifact",
        required=True,
        metavar="FILE",
        help="int8 TorchScript, written by torch.jit.save; it is loaded and run",
    )
    add(
        "--backend",
        metavar="NAME",
        help="what it will run on; default: that of the settings, what it records, or else the "
        "recipe's recommendation",
    )
    add(
        "--keep-float",
        type=_listed,
        default=(),
        metavar="NAMES",
        help="modules that are meant to stay float32, with commas between",
    )
    _add_reporting(parser)
    _add_sources(parser, from_settings=True)
    _add_thresholds(parser)
    _add_measuring(parser)


def _add_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugin",
        action="append",
        metavar="MODULE",
        help="import it first: it registers models of your own; repeat for several",
    )
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="FILE",
        help="use this recipe for the model that it names (see `ptqbench recipe`)",
    )


def _add_reporting(parser: argparse.ArgumentParser) -> None:
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
        help="no lines about progress on standard error where that is no terminal",
    )


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    measuring = parser.add_argument_group("measuring latency")
    measuring.add_argument(
        "--input-size",
        type=types.positive,
        metavar="N",
        help="height and width; default: the standard size of the model",
    )
    measuring.add_argument("--batch-size", type=types.positive, metavar="N", help="default: 1")
    measuring.add_argument(
        "--threads", type=types.positive, metavar="N", help="default: all physical cores"
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="a photograph")
    parser.add_argument("--model", required=True, metavar="NAME")
    _add_plugins(parser)
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="default: that of the settings, or else the recipe's recommendation",
    )
    _add_sources(parser, from_settings=True, limited=False)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a name, or module:function of your own")
    _add_plugins(parser)
    parser.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="the one to recommend; default: the recipe's, or the fastest where it has none",
    )
    parser.add_argument(
        "--keep-float",
        type=_listed,
        metavar="NAMES",
        help="modules that stay float32, wildcards allowed, with commas between",
    )
    _add_sources(parser, from_settings=True)
    _add_measuring(parser)


def _add_list(parser: argparse.ArgumentParser) -> None:
    _add_plugins(parser)
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")


def _add_show_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="names or wildcards; default: as in the settings"
    )
    _add_plugins(parser)


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("thresholds", "by default those of the recipe").add_argument
    add(
        "--threshold",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="like accuracy=0.985, accuracy_points=1, top5=0.99, sqnr_db=25, agreement=0.97, "
        "size_ratio=3.5 or speedup.avx2=1.5; repeat for several (docs/gates.md)",
    )
    add(
        "--max-bytes",
        type=types.size,
        metavar="SIZE",
        help="most that the int8 file may take, like 3000000, 2.5MB or 3MiB",
    )


def _add_sources(
    parser: argparse.ArgumentParser, *, from_settings: bool = False, limited: bool = True
) -> None:
    """Weights, images and what goes with them; with settings, None is what nobody gave."""
    fixture, seed = (None, None) if from_settings else ("fixture", 0)
    sources = parser.add_argument_group("weights and images")
    add = sources.add_argument
    add(
        "--weights",
        default=fixture,
        metavar="FILE",
        help="safetensors, a state dict or a checkpoint; or fixture, probe, imagenet, or the name "
        "of torchvision's weights such as IMAGENET1K_V2; default: the shipped fixture weights, and "
        "probe for models without",
    )
    add(
        "--data",
        default=fixture,
        metavar="DATA",
        help="a folder: one folder of images per class, or train/ and val/ of such, or images "
        "without labels; or cifar10[:ROOT] or imagenet:ROOT; default: fixture images",
    )
    add(
        "--seed",
        type=types.natural,
        default=seed,
        metavar="N",
        help="of every random choice; default: 0",
    )
    add("--cache-dir", metavar="DIR", help="where generated images are kept")
    _add_reading(sources, limited)
    preprocessing = parser.add_argument_group(
        "preprocessing and classes", "by default those of FILE.json beside the weights"
    )
    add = preprocessing.add_argument
    add("--resize", type=types.positive, metavar="N", help="shorter side in pixels before the crop")
    add("--crop", type=types.positive, metavar="N", help="side of the central crop in pixels")
    add("--mean", type=types.three, metavar="R,G,B", help="of the channels, as fractions of 1")
    add(
        "--std",
        type=types.three_positive,
        metavar="R,G,B",
        help="of the channels, as fractions of 1",
    )
    add("--interpolation", metavar="NAME", help="nearest, bilinear, bicubic or lanczos")
    add(
        "--classes",
        type=types.classes,
        metavar="NAMES",
        help="a text file with one name a line, or names with commas between; in output order",
    )


def _add_reading(group: argparse._ArgumentGroup, limited: bool) -> None:
    """How images are read; one picture alone is not evaluated on any number of them."""
    if limited:
        group.add_argument(
            "--limit",
            type=types.positive,
            metavar="N",
            help="evaluate on N images at most, each class with its share; default: all",
        )
    group.add_argument(
        "--broken-share",
        type=types.share,
        metavar="SHARE",
        help="share of the pictures that may be undecodable; default: 0.01",
    )
    group.add_argument(
        "--workers",
        type=types.positive,
        metavar="N",
        help="threads that decode pictures beside inference; default: one per core",
    )


class _Version(argparse.Action):
    """Looks the version up only if it is asked for."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from ptqbench.core.version import package_version

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


def _listed(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("names nothing")
    return names
