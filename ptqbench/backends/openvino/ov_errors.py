"""The reason in an error of OpenVINO."""

from __future__ import annotations

import re

_PLACE = re.compile(
    r"(?:Exception from \S+:|Check '.*' failed at \S+:|\[ ?\w+ ?\])|^\S+\.[ch]pp:\d+:?"
)


def reason_of(error: Exception) -> str:
    """Return the reason, without the places in the runtime's source that it went through."""
    lines = [_PLACE.sub("", line).strip() for line in str(error).splitlines()]
    return next((line.rstrip(".") for line in lines if line), type(error).__name__)
