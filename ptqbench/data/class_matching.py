"""Which output of the model a folder of pictures belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptqbench.core.names import first_few, nearest
from ptqbench.errors import UserError

_SYNSET = re.compile(r"n\d{8}")

_IMAGENET = 1000

_LANDMARKS = {
    "n01440764": (0, "tench"),
    "n01443537": (1, "goldfish"),
    "n01614925": (22, "bald eagle"),
    "n02096051": (191, "airedale"),
    "n02692877": (405, "airship"),
    "n02951585": (473, "can opener"),
    "n15075141": (999, "toilet tissue"),
}
"""Where some synsets stand among ImageNet's thousand, and what torchvision's weights call them."""


@dataclass(frozen=True)
class ClassMap:
    """What the folders of a data set mean.

    Attributes:
        names: Class names of the outputs, in their order.
        labels: Index of the output of each folder, by the name of the folder.
        note: What a reader must know about how they were matched; empty if by name.
    """

    names: tuple[str, ...]
    labels: Mapping[str, int]
    note: str = ""


def match_classes(
    found: Sequence[str],
    classes: Sequence[str] | None,
    num_classes: int,
    place: str,
    kind: str = "folders",
) -> ClassMap:
    """Match the classes of images to the outputs of weights, by name.

    Folders that are called by ImageNet's synsets (``n01443537``) match classes that begin
    with a synset; or, where all thousand are there, the outputs of weights with ImageNet's
    thousand classes: torchvision numbers them by the sorted order of the synsets.

    Args:
        found: Names of the images' classes, sorted if nobody knows their order.
        classes: Class names of the weights in the order of the outputs; None: not known, and
            ``found`` names the outputs in their order.
        num_classes: Number of outputs of the weights.
        place: Where the images are, for messages.
        kind: What its classes are, for messages.

    Raises:
        UserError: A class of the images is none of the weights', or their number differs.
    """
    if classes is None:
        if len(found) != num_classes:
            raise UserError(
                f"{place} has {len(found)} classes ({first_few(found)}), but the weights have "
                f"{num_classes} outputs. Name the classes of the outputs, in their order, with "
                "--classes or in the sidecar of the weights."
            )
        return ClassMap(tuple(found), {name: index for index, name in enumerate(found)})
    names = tuple(classes)
    labels = {name: index for index, name in enumerate(names)}
    if all(name in labels for name in found):
        _check_unambiguous(found, names, place)
        return ClassMap(names, {name: labels[name] for name in found})
    if all(_SYNSET.fullmatch(name) for name in found):
        return _match_synsets(found, names, place)
    unknown = [name for name in found if name not in labels]
    raise UserError(
        f"{len(unknown)} of {len(found)} {kind} in {place} are called like none of the weights' "
        f"{len(names)} classes: {first_few(unknown)}. {nearest(unknown[0], list(names)[:20])} "
        f"{'Rename the folders, or name' if kind == 'folders' else 'Name'} the classes in the "
        "order of the outputs with --classes, or pass the images that belong to the weights "
        "with --data."
    )


def _check_unambiguous(found: Sequence[str], names: Sequence[str], place: str) -> None:
    twice = [name for name in found if names.count(name) > 1]
    if twice:
        raise UserError(
            f"{place} has a class {twice[0]}, but several outputs of the weights are called so. "
            "Name the classes in the order of the outputs, each differently, with --classes."
        )


def _match_synsets(found: Sequence[str], names: tuple[str, ...], place: str) -> ClassMap:
    """Match folders called by synsets to classes that are called otherwise.

    Raises:
        UserError: There is nothing that says which synset is which class.
    """
    first_words = [name.split(maxsplit=1)[0] if name.strip() else "" for name in names]
    if all(_SYNSET.fullmatch(word) for word in first_words):
        index = {word: position for position, word in enumerate(first_words)}
        unknown = [name for name in found if name not in index]
        if not unknown:
            return ClassMap(names, {name: index[name] for name in found})
        raise UserError(
            f"{len(unknown)} of {len(found)} folders in {place} are none of the weights' synsets: "
            f"{first_few(unknown)}. Remove them, or name all synsets in the order of the outputs "
            "with --classes."
        )
    ordered = sorted(found)
    if len(ordered) == len(names) == _IMAGENET and _is_imagenet(ordered, names):
        note = (
            "The folders are called by synsets: all 1,000 of ImageNet are there, so they are "
            "matched to the outputs in sorted order, as torchvision numbers them."
        )
        return ClassMap(names, {name: index for index, name in enumerate(ordered)}, note)
    raise UserError(
        f"The {len(found)} folders in {place} are called by synsets ({first_few(found, 3)}), the "
        f"weights' {len(names)} classes by words ({first_few(names, 3)}), and nothing says which "
        "is which: sorted order only tells where ImageNet's 1,000 synsets are all there and the "
        "weights have its classes in its order. Pass a file with the synsets in the order of the "
        "outputs, one a line (with or without words after it), with --classes; or, for "
        "ImageNet with its meta.bin or devkit, --data imagenet:ROOT."
    )


def _is_imagenet(ordered: Sequence[str], names: Sequence[str]) -> bool:
    """Whether synsets and words are where some well-known ones of ImageNet's thousand are."""
    return all(
        ordered[index] == synset and names[index].casefold().startswith(word)
        for synset, (index, word) in _LANDMARKS.items()
    )


def folders_or_refuse(folders: Sequence[str], place: Path) -> Sequence[str]:
    """The names of the folders of classes.

    Raises:
        UserError: There are none.
    """
    if not folders:
        raise UserError(
            f"{place} has no folders and no pictures (.jpg, .png, .webp, …). Pass a "
            "folder with one folder per class, or one that holds pictures without labels."
        )
    return folders
