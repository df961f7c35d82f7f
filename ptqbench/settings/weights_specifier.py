"""Parse a weights specifier: the name of a source, a member of a torchvision enum, or a path."""

from __future__ import annotations

import re

from ptqbench.core.names import nearest
from ptqbench.core.package_data import SHIPPED
from ptqbench.core.paths import is_file, user_path
from ptqbench.errors import UserError

FIXTURE = "fixture"
PROBE = "probe"
IMAGENET = "imagenet"
PRETRAINED = "pretrained"
NAMES = (FIXTURE, PROBE, IMAGENET, PRETRAINED)
"""Named sources that exist for more than one model."""

ALLOWED = (
    "`fixture`, `probe`, `imagenet`, the name of torchvision's weights such as "
    "`IMAGENET1K_V2`, `pretrained` for a model of timm, or a file"
)
"""All forms of a specifier, for messages."""

_ENUM_NAME = re.compile(r"(\w+_Weights\.)?[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def default_weights(model: str) -> str:
    """Return the source of a model's weights if none is set.

    Args:
        model: Registered name.
    """
    return FIXTURE if model in SHIPPED else PROBE


def check_weights(text: str, origin: str = "") -> None:
    """Fail early if a text is neither the name of a source of weights nor a file.

    Args:
        text: As the user wrote it.
        origin: Who set it, for the message.

    Raises:
        UserError: It is a path, and there is no file.
    """
    if not is_source_name(text) and not is_file(user_path(text)):
        place = f" ({origin})" if origin else ""
        raise UserError(
            f"There are no weights at {text}{place}: it is neither a file nor the name of a "
            f"source. {_hint(text)}"
        )


def _hint(text: str) -> str:
    hint = nearest(text, list(NAMES))
    if is_enum_name(text.upper()):
        return f"Did you mean {text.upper()}?"
    return hint if hint.startswith("Did") else f"Weights may come from: {ALLOWED}."


def is_source_name(text: str) -> bool:
    """Whether a text names a source of weights; otherwise it is a path.

    Names are ``fixture``, ``probe``, ``imagenet``, ``pretrained``, and what looks like a member of
    torchvision's weights enums: capitals, digits and underscores, such as ``IMAGENET1K_V2``. The
    path ``./IMAGENET1K_V2`` names a file that is called like that.

    Args:
        text: As the user wrote it.
    """
    return text in NAMES or is_enum_name(text)


def is_enum_name(text: str) -> bool:
    """Whether a text looks like a member of torchvision's weights enums.

    Args:
        text: As the user wrote it; ``ResNet50_Weights.IMAGENET1K_V2`` counts too.
    """
    return _ENUM_NAME.fullmatch(text) is not None
