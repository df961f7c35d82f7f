"""Image classifiers of timm: ``timm:resnet18d``, ``timm:resnet50.a1_in1k``, ``timm:lcnet*``."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import importlib.util
import math
from collections.abc import Mapping
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ptqbench.core.user_code import describe_error
from ptqbench.errors import UserError
from ptqbench.models.custom.registration import add
from ptqbench.models.custom.spec import CUSTOM_MODELS, CustomModel

if TYPE_CHECKING:
    from torch import nn

PREFIX = "timm:"
_INSTALL = "python -m pip install timm"
_WILDCARDS = frozenset("*?[")


def is_timm(text: str) -> bool:
    """Whether a text names models of timm, or is a wildcard for some."""
    return text.startswith(PREFIX)


def register(text: str, origin: str = "") -> None:
    """Register the models of timm that a text names.

    Args:
        text: ``timm:NAME``, with or without the tag of pretrained weights, or a wildcard, which
            stands for architectures as in ``timm.list_models``.
        origin: Where it is written, for messages.

    Raises:
        UserError: timm is missing or cannot be imported, has no such model, or the model takes
            other pictures than square ones in colour.
    """
    name = text.removeprefix(PREFIX)
    if text in CUSTOM_MODELS:
        return
    place = f" ({origin})" if origin else ""
    timm = import_timm(f"{text}{place}")
    if not _WILDCARDS.intersection(name):
        if not timm.is_model(name) or not _has_tag(timm, name):
            raise UserError(f"timm {timm.__version__} has no model {name!r}{place}. {_hint(name)}")
        add(_model(timm, name))
        return
    names = architectures(name)
    if not names:
        raise UserError(
            f"No architecture of timm {timm.__version__} matches {text!r}{place}. {_hint(name)}"
        )
    for each in names:
        if f"{PREFIX}{each}" not in CUSTOM_MODELS and _is_square(timm, each):
            add(_model(timm, each))


def is_installed() -> bool:
    """Whether there is a timm, without importing it."""
    return importlib.util.find_spec("timm") is not None


def summary() -> tuple[str, int] | None:
    """Return timm's version and the number of its architectures; None if it cannot be used."""
    if not is_installed():
        return None
    try:
        return import_timm("the inventory").__version__, len(architectures())
    except UserError:
        return None


@cache
def architectures(pattern: str = "*") -> tuple[str, ...]:
    """Return the names of timm's architectures that match a wildcard, in timm's order.

    Raises:
        UserError: timm is missing or cannot be imported.
    """
    names: list[str] = import_timm("timm").list_models()
    return tuple(fnmatch.filter(names, pattern))


def import_timm(what: str) -> ModuleType:
    """Import timm.

    Args:
        what: What needs it, for messages.

    Raises:
        UserError: It is missing or cannot be imported.
    """
    from ptqbench.models.import_torchvision import import_torchvision

    import_torchvision()  # timm imports it, and could not where its operators do not load
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name == "timm":
            raise UserError(f"{what} needs timm, which is not installed: {_INSTALL}") from None
        raise _broken(what, error) from error
    except Exception as error:  # whatever a package says to others that do not fit it
        raise _broken(what, error) from error


def _broken(what: str, error: Exception) -> UserError:
    return UserError(
        f"{what} needs timm, which cannot be imported: {describe_error(error)}. Install one that "
        f"fits your torch and torchvision: {_INSTALL}"
    )


def _has_tag(timm: Any, name: str) -> bool:
    """Whether a name has no tag, or one that timm knows."""
    architecture, _, tag = name.partition(".")
    return not tag or name in timm.list_models(f"{architecture}.*", include_tags=True)


def _hint(name: str) -> str:
    architecture = name.partition(".")[0]
    names = architectures()
    if architecture in names:
        tagged = import_timm("timm").list_models(f"{architecture}.*", include_tags=True)
        return f"{architecture} comes as {', '.join(tagged) or architecture}."
    close = difflib.get_close_matches(architecture, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(PREFIX + each for each in close)}?"
    return f"`ptqbench list '{PREFIX}*'` lists all {len(names):,}."


def _is_square(timm: Any, name: str) -> bool:
    channels, height, width = timm.get_pretrained_cfg(name).input_size
    return bool(channels == 3 and height == width)


def _model(timm: Any, name: str) -> CustomModel:
    configuration = timm.get_pretrained_cfg(name)
    if not _is_square(timm, name):
        shape = "×".join(map(str, configuration.input_size))
        raise UserError(
            f"{PREFIX}{name} takes pictures of {shape}, and ptqbench only gives square ones in "
            "colour."
        )
    return CustomModel(
        f"{PREFIX}{name}",
        partial(_create, name),
        f"timm {timm.__version__}",
        configuration.num_classes or None,
        tuple(configuration.input_size),
        fixed_input=bool(configuration.fixed_input_size),
        preprocessing=preprocessing(configuration.to_dict()),
        note=_note(name, configuration.crop_mode),
    )


def preprocessing(configuration: Mapping[str, Any]) -> dict[str, object]:
    """Return timm's preparation of pictures for evaluation, by the names of a sidecar.

    Args:
        configuration: A ``pretrained_cfg`` of timm, whose input is square.
    """
    side = configuration["input_size"][1]
    resize = math.floor(side / (configuration.get("crop_pct") or 0.875))
    return {
        "resize": max(resize, side),
        "crop": side,
        "mean": tuple(configuration["mean"]),
        "std": tuple(configuration["std"]),
        "interpolation": configuration.get("interpolation") or "bicubic",
    }


def _note(name: str, crop_mode: str | None) -> str:
    if crop_mode in (None, "center"):
        return ""
    return (
        f"timm prepares pictures for {name} by the crop mode {crop_mode!r}, which keeps more than "
        "their centre; ptqbench cuts out the centre, for float32 and int8 alike."
    )


def _create(name: str, num_classes: int) -> nn.Module:
    model: nn.Module = import_timm(f"{PREFIX}{name}").create_model(name, num_classes=num_classes)
    return model
