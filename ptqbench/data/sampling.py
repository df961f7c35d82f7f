"""Choose images at random, but the same ones on every machine: by hashes of their names."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

HELD_OUT = 5
"""At most one in so many images of each class is held out for calibration."""


def balanced(
    labels: Sequence[int],
    names: Iterable[str],
    count: int,
    seed: int,
    most: Mapping[int, int] | None = None,
) -> list[int]:
    """Choose positions evenly over the labels.

    Every label gets its turn before any gets another one. If the last turn does not suffice
    for all of them, chance decides, not the order of the labels.

    Args:
        labels: The label of each image.
        names: The name of each image, the same on every machine, by which it is chosen.
        count: How many to choose, at most.
        seed: Seed of the choice.
        most: How many to choose of each label, at most; None: no such bound.

    Returns:
        Positions, in the order in which they were chosen: the first few are balanced too.
    """
    ranks = _ranks(names, seed)
    turns = [
        positions if most is None else positions[: most[label]]
        for label, positions in _by_label(labels, ranks).items()
    ]
    chosen: list[int] = []
    for turn in itertools.zip_longest(*turns):
        if len(chosen) >= count:
            break
        chosen += sorted((p for p in turn if p is not None), key=ranks.__getitem__)
    return chosen[:count]


def held_out(labels: Sequence[int], names: Iterable[str], count: int, seed: int) -> list[int]:
    """Choose calibration images out of the evaluation images, evenly over the labels.

    At most a fifth of each label is taken, so that all keep their shares of the evaluation, and
    labels of fewer than five images give none. If that leaves less than half of what may be
    taken, because most labels are that small, each label of at least two images gives one.

    Args:
        labels: The label of each image.
        names: The name of each image, the same on every machine.
        count: How many to choose, at most; it is at most a fifth of all, rounded up to one.
        seed: Seed of the choice.

    Returns:
        Positions, in the order in which they were chosen.
    """
    sizes = Counter(labels)
    count = min(count, max(len(labels) // HELD_OUT, 1))
    most = {label: size // HELD_OUT for label, size in sizes.items()}
    if 2 * sum(most.values()) < count:
        most = {label: max(most[label], int(size > 1)) for label, size in sizes.items()}
    return balanced(labels, names, count, seed, most)


def proportional(labels: Sequence[int], names: Iterable[str], count: int, seed: int) -> list[int]:
    """Choose positions so that each label keeps its share of the images.

    The shares are rounded by Webster's method, but each label gets at least one image; if there
    are fewer images than labels, labels are drawn at random, in proportion to their sizes. Unlike
    the method of largest remainders, a larger choice always contains the smaller one.

    Args:
        labels: The label of each image.
        names: The name of each image, the same on every machine, by which it is chosen.
        count: How many to choose, at most.
        seed: Seed of the choice.

    Returns:
        Positions, in the order in which they were chosen.
    """
    ranks = _ranks(names, seed)
    first: list[int] = []
    others: list[tuple[float, str, int]] = []
    for positions in _by_label(labels, ranks).values():
        first.append(positions[0])
        size = len(positions)
        others += [((i + 0.5) / size, ranks[p], p) for i, p in enumerate(positions) if i]
    # The lowest of many hashes is lower than that of a few, hence larger labels come first.
    order = [*sorted(first, key=ranks.__getitem__), *(p for *_, p in sorted(others))]
    return order[:count]


def _by_label(labels: Sequence[int], ranks: Sequence[str]) -> dict[int, list[int]]:
    """Positions of each label, in the order of their ranks."""
    positions: dict[int, list[int]] = defaultdict(list)
    for position in sorted(range(len(labels)), key=ranks.__getitem__):
        positions[labels[position]].append(position)
    return positions


def _ranks(names: Iterable[str], seed: int) -> list[str]:
    # Hashes instead of a shuffle: a picture more or less does not change the others' places.
    return [
        hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).hexdigest()
        for name in names
    ]
