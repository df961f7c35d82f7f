"""The names of ImageNet's folders, in the order of the outputs of torchvision's classifiers."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def imagenet_synsets() -> tuple[str, ...]:
    """WordNet's identifiers of the thousand classes (``n01440764``, …), in output order.

    They are sorted, so this is also the order of the folders.
    """
    text = Path(__file__).with_name("imagenet_synsets.txt").read_text(encoding="ascii")
    return tuple(text.split())
