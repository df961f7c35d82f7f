"""Choose images evenly over their classes: at random, but alike on every machine."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence


def balanced(labels: Sequence[int], names: Iterable[str], count: int, seed: int) -> list[int]:
    """Choose positions evenly over the labels.

    Every label gets its turn before any gets another one; where the last turn is not for
    all, chance decides who has it, not the order of the labels.

    Args:
        labels: The label of each image.
        names: What an image is called on every machine, by which it is chosen.
        count: How many to choose, at most.
        seed: Chooses.

    Returns:
        Positions, in the order in which they were chosen: the first few are balanced too.
    """
    ranks = [_rank(name, seed) for name in names]
    by_label: dict[int, list[int]] = defaultdict(list)
    for position in sorted(range(len(labels)), key=ranks.__getitem__):
        by_label[labels[position]].append(position)
    chosen: list[int] = []
    for turn in itertools.zip_longest(*by_label.values()):
        if len(chosen) >= count:
            break
        chosen += sorted((p for p in turn if p is not None), key=ranks.__getitem__)
    return chosen[:count]


def held_out_share(images: int, wanted: int) -> int:
    """How many calibration images to take out of ``images``: as wanted, at most a fifth."""
    return min(wanted, max(images // 5, 1))


def _rank(name: str, seed: int) -> str:
    # A hash instead of a shuffle: a picture more or less does not change the others' places.
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).hexdigest()
