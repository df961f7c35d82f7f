"""The table of settings: one row per setting.

The parser of the command line, pytest's options, ``show-config``, the checks of files and the
published JSON Schema are derived from it. A new setting is a row here, a field of `RunSettings`
if it belongs to a case, and the place that uses it.
"""

from __future__ import annotations

from dataclasses import fields

from ptqbench.settings import values
from ptqbench.settings.run_settings import BASELINES, BROKEN_SHARE, FASTEST
from ptqbench.settings.setting import (
    ALL_COMMANDS,
    MEASURING,
    OPENING,
    CommandOption,
    PytestOption,
    Setting,
)
from ptqbench.settings.thresholds import INSTRUCTION_SETS, TOP1_POLICIES, Thresholds

PROFILES = ("local", "ci")
REPORTS = ("json", "markdown")
"""Formats of reports."""
OVERRIDES = {
    **{f"preprocessing.{n}": n for n in ("resize", "crop", "mean", "std", "interpolation")},
    "classes": "classes",
}
"""Settings that take precedence over the weights' sidecar, and its names for them."""

_LARGEST_SEED = 2**32 - 1
_MOST_THREADS = 1024
"""Larger numbers overflow in torch, or no system can start so many."""

_SOURCES = "weights and images"
_PREPROCESSING = "preprocessing and classes"
_THRESHOLDS = "thresholds"
_LATENCY = "measuring latency"
GROUPS = {
    _SOURCES: "",
    _PREPROCESSING: "by default those of FILE.json next to the weights",
    _THRESHOLDS: "by default those of the recipe",
    _LATENCY: "",
}
"""Groups of the command line's options in the help, with their descriptions."""


def _override(key: str, type_: values.ValueType, metavar: str, help_: str) -> Setting:
    option = CommandOption(f"--{OVERRIDES[key]}", metavar, OPENING, group=_PREPROCESSING)
    return Setting(key, type_, help_, unset="from the weights", commands=(option,))


def _latency(
    key: str, type_: values.ValueType, help_: str, unset: str = "", default: object = None
) -> Setting:
    flag, metavar = f"--{key.replace('_', '-')}", "WHICH" if isinstance(default, str) else "N"
    option = CommandOption(flag, metavar, MEASURING, group=_LATENCY)
    return Setting(key, type_, help_, default=default, unset=unset, commands=(option,))


_THRESHOLD_TYPES = {
    "accuracy": (values.SHARE, "share of float32's top-1 that int8 must keep"),
    "accuracy_points": (values.POINTS, "percentage points of top-1 that int8 may lose"),
    "reference_top1": (values.SHARE, "top-1 that int8 must reach, as a fraction of 1"),
    "top5": (values.SHARE, "share of float32's top-5 that int8 must keep"),
    "agreement": (values.SHARE, "share of images on which int8 and float32 must agree"),
    "sqnr_db": (values.NUMBER, "signal-to-quantization-noise ratio in dB that logits must have"),
    "parity_db": (values.NUMBER, "dB of SQNR that execution may lose against simulation"),
    "size_ratio": (values.NUMBER, "how many times smaller the int8 file must be"),
    "max_bytes": (values.SIZE, "maximum size of the int8 file, like 3000000, 2.5MB or 3MiB"),
    "speedup": (values.NUMBER, "how many times faster int8 must be"),
}
_MAX_BYTES = CommandOption(
    "--max-bytes", "SIZE", ("run", "gate", "recommend", "migrate"), group=_THRESHOLDS
)


def _threshold_rows() -> list[Setting]:
    """Return a row for each field of `Thresholds`, one per instruction set if it is a mapping."""
    rows = []
    for field in fields(Thresholds):
        type_, help_ = _THRESHOLD_TYPES[field.name]
        key = f"thresholds.{field.name}"
        options = (_MAX_BYTES,) if field.name == "max_bytes" else ()
        if "Mapping" in str(field.type):
            rows += [
                Setting(f"{key}.{part}", type_, f"{help_} on CPUs with {part}")
                for part in INSTRUCTION_SETS
            ]
        else:
            rows.append(Setting(key, type_, help_, commands=options))
    return rows


_ROWS = (
    Setting(
        "models",
        values.NAMES,
        "names or wildcards of models",
        default=(),
        unset="the six shipped models",
        per_model=False,
        pytest=PytestOption(
            "--ptqbench-models",
            "NAMES",
            "names or wildcards, with commas between; default: the six shipped models",
            listed=True,
        ),
    ),
    Setting(
        "plugins",
        values.MODULES,
        "modules to import first: they register custom models",
        default=(),
        per_model=False,
        needs_trust=True,
        commands=(
            CommandOption(
                "--plugin",
                "MODULE",
                ALL_COMMANDS,
                "import it first: it registers custom models; repeat for several",
                repeatable=True,
            ),
        ),
    ),
    Setting(
        "recipes",
        values.PATHS,
        "recipe files, each for the model that it names",
        default=(),
        per_model=False,
        needs_trust=True,
        commands=(
            CommandOption(
                "--recipe",
                "FILE",
                ALL_COMMANDS,
                "use this recipe for the model that it names (see `ptqbench recipe`)",
                repeatable=True,
            ),
        ),
    ),
    Setting(
        "profile",
        values.choice(*PROFILES),
        "ci: what is inconclusive or unverified fails; local: it is skipped",
        default="local",
        unset="ci if CI is set in the environment, else local",
        per_model=False,
        pytest=PytestOption("--ptqbench-profile", "NAME"),
    ),
    *(
        Setting(
            f"report.{name}",
            values.PATH,
            f"file that the report is written to as {label}",
            per_model=False,
            needs_trust=True,
        )
        for name, label in zip(REPORTS, ("JSON", "Markdown"), strict=True)
    ),
    Setting(
        "baselines",
        values.PATH,
        "folder of the committed references",
        per_model=False,
        needs_trust=True,
    ),
    Setting(
        "backends",
        values.NAMES,
        "names or wildcards of backends",
        default=(),
        unset="the one that each recipe recommends",
        commands=(
            CommandOption(
                "--backend",
                "NAME",
                ("run", "recommend", "migrate"),
                "repeat for several; default: the one that each recipe recommends",
                repeatable=True,
            ),
            CommandOption(
                "--backend",
                "NAME",
                ("gate",),
                "what it will run on; default: that of the settings, what it records, or else "
                "the recipe's recommendation",
            ),
            CommandOption(
                "--backend",
                "NAME",
                ("predict",),
                "default: that of the settings, or else the recipe's recommendation",
            ),
            CommandOption(
                "--backend",
                "NAME",
                ("recipe",),
                "the one to recommend; default: the recipe's, or the fastest if it has none",
                repeatable=True,
            ),
        ),
        pytest=PytestOption(
            "--ptqbench-backends",
            "NAMES",
            "names or wildcards, with commas between; default: what each recipe recommends",
            listed=True,
        ),
    ),
    Setting(
        "weights",
        values.WEIGHTS,
        "safetensors, a state dict or a checkpoint; or fixture, probe, imagenet, the name of "
        "torchvision's weights such as IMAGENET1K_V2, or pretrained for a model of timm",
        default="fixture",
        unset="the shipped fixture weights, and probe for models without",
        commands=(CommandOption("--weights", "FILE", OPENING, group=_SOURCES),),
        pytest=PytestOption("--ptqbench-weights", "FILE"),
    ),
    Setting(
        "weights_key",
        values.TEXT,
        "which set of weights to take from a checkpoint that holds several, such as state_dict_ema",
        unset="what was trained",
        commands=(CommandOption("--weights-key", "KEY", OPENING, group=_SOURCES),),
        pytest=PytestOption("--ptqbench-weights-key", "KEY"),
    ),
    Setting(
        "data",
        values.DATA,
        "a folder: one folder of images per class, or train/ and val/ of such, or images without "
        "labels; or cifar10[:ROOT] or imagenet:ROOT",
        default="fixture",
        unset="fixture images",
        commands=(CommandOption("--data", "DATA", OPENING, group=_SOURCES),),
        pytest=PytestOption("--ptqbench-data", "DATA"),
    ),
    Setting(
        "seed",
        values.whole(0, _LARGEST_SEED),
        "seed of every random choice",
        default=0,
        commands=(CommandOption("--seed", "N", OPENING, group=_SOURCES),),
    ),
    Setting(
        "limit",
        values.whole(1),
        "evaluate on N images at most, each class with its share",
        unset="all images",
        commands=(CommandOption("--limit", "N", MEASURING, group=_SOURCES),),
        pytest=PytestOption("--ptqbench-limit", "N"),
    ),
    Setting(
        "broken_share",
        values.SHARE,
        "share of the pictures that may be undecodable",
        default=BROKEN_SHARE,
        commands=(CommandOption("--broken-share", "SHARE", OPENING, group=_SOURCES),),
    ),
    Setting(
        "workers",
        values.whole(1, _MOST_THREADS),
        "threads that decode pictures during inference",
        unset="one per core",
        commands=(CommandOption("--workers", "N", OPENING, group=_SOURCES),),
    ),
    _override(
        "preprocessing.resize", values.whole(1), "N", "shorter side in pixels before cropping"
    ),
    _override("preprocessing.crop", values.whole(1), "N", "side of the central crop in pixels"),
    _override(
        "preprocessing.mean", values.MEAN, "R,G,B", "mean of the channels, as fractions of 1"
    ),
    _override(
        "preprocessing.std",
        values.STD,
        "R,G,B",
        "standard deviation of the channels, as fractions of 1",
    ),
    _override(
        "preprocessing.interpolation",
        values.choice("nearest", "bilinear", "bicubic", "lanczos"),
        "NAME",
        "how pictures are resized: nearest, bilinear, bicubic or lanczos",
    ),
    _override(
        "classes",
        values.CLASS_NAMES,
        "NAMES",
        "class names in output order: a text file with one name a line, or names with commas "
        "between",
    ),
    *_threshold_rows(),
    _latency("input_size", values.whole(1), "height and width of the input", "the model's size"),
    _latency("batch_size", values.whole(1), "images per inference", default=1),
    _latency("threads", values.whole(1, _MOST_THREADS), "inference threads", "all physical cores"),
    _latency(
        "baseline",
        values.choice(*BASELINES),
        "float32 that int8 must beat: in the fastest installed runtime, or in int8's runtime",
        default=FASTEST,
    ),
)

SETTINGS: dict[str, Setting] = {row.key: row for row in _ROWS}
"""Every setting by its dotted key."""

POLICIES = tuple(f"thresholds.{name}" for name in TOP1_POLICIES)
"""Settings that exclude each other: setting one replaces one that is set lower down."""


def threshold_names() -> tuple[str, ...]:
    """Return the names of the thresholds, as the marker takes them."""
    return tuple(field.name for field in fields(Thresholds))
