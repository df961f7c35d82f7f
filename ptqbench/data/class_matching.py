"""Match the classes of images to the outputs of weights."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ptqbench.core.names import first_few, nearest
from ptqbench.data.imagenet_synsets import imagenet_synsets
from ptqbench.errors import UserError
from ptqbench.models.import_torchvision import import_torchvision

_SYNSET = re.compile(r"n\d{8}")
_SAME_WORDS = 0.9
"""Share of ImageNet's words that a list must have in place: two editions differ in a few."""


@dataclass(frozen=True)
class ClassMap:
    """Labels of the classes of a data set.

    Attributes:
        names: Class names of the outputs, in their order.
        labels: Index of the output of each class of the data, by its name.
        note: What a reader must know about how they were matched; empty if by name.
    """

    names: tuple[str, ...]
    labels: Mapping[str, int]
    note: str = ""


def match_classes(
    present: Sequence[str],
    classes: Sequence[str] | None,
    num_classes: int,
    place: str,
    kind: str = "folders",
) -> ClassMap:
    """Match the classes of images to the outputs of weights, by name.

    Folders named by ImageNet's synsets (``n01443537``) match classes that begin with a synset,
    or the outputs of weights with ImageNet's thousand classes in torchvision's order.

    Args:
        present: Names of the images' classes, sorted if their order is not known.
        classes: Class names of the weights in the order of the outputs; None: not known, and
            ``present`` names the outputs in their order.
        num_classes: Number of outputs of the weights.
        place: Where the images are, for messages.
        kind: What the classes of the images are, for messages.

    Raises:
        UserError: A class of the images is not one of the weights', or their number differs.
    """
    if classes is None:
        if len(present) != num_classes:
            raise UserError(
                f"{place} has {len(present)} classes ({first_few(present)}), but the weights have "
                f"{num_classes} outputs. Name the classes of the outputs, in their order, with "
                "--classes or in the sidecar of the weights."
            )
        return ClassMap(tuple(present), {name: index for index, name in enumerate(present)})
    names = tuple(classes)
    labels = {name: index for index, name in enumerate(names)}
    if all(name in labels for name in present):
        _check_unambiguous(present, names, place)
        return ClassMap(names, {name: labels[name] for name in present})
    if all(_SYNSET.fullmatch(name) for name in present):
        return _match_synsets(present, names, place)
    unknown = [name for name in present if name not in labels]
    raise UserError(
        f"{len(unknown)} of {len(present)} {kind} in {place} do not match any of the weights' "
        f"{len(names)} classes: {first_few(unknown)}. {nearest(unknown[0], list(names)[:20])} "
        f"{'Rename the folders, or name' if kind == 'folders' else 'Name'} the classes in the "
        "order of the outputs with --classes, or pass the images that belong to the weights "
        "with --data."
    )


def _check_unambiguous(present: Sequence[str], names: Sequence[str], place: str) -> None:
    twice = [name for name in present if names.count(name) > 1]
    if twice:
        raise UserError(
            f"{place} has a class {twice[0]}, but several outputs of the weights have that name. "
            "Name the classes in the order of the outputs, each differently, with --classes."
        )


def _match_synsets(present: Sequence[str], names: tuple[str, ...], place: str) -> ClassMap:
    """Match folders named by synsets to classes with other names.

    Raises:
        UserError: It is not known which synset is which class.
    """
    first_words = [name.split(maxsplit=1)[0] if name.strip() else "" for name in names]
    if all(_SYNSET.fullmatch(word) for word in first_words):
        index = {word: position for position, word in enumerate(first_words)}
        return ClassMap(names, _indices(present, index, "the weights' synsets", place))
    if _are_imagenets(names):
        index = {synset: position for position, synset in enumerate(imagenet_synsets())}
        note = (
            "The folders are named by synsets: they are matched to the outputs in the order of "
            "ImageNet's 1,000 synsets, as torchvision numbers them."
        )
        return ClassMap(names, _indices(present, index, "ImageNet's 1,000 synsets", place), note)
    raise UserError(
        f"The {len(present)} folders in {place} are named by synsets ({first_few(present, 3)}), "
        f"the weights' {len(names)} classes by words ({first_few(names, 3)}), and these are not "
        "ImageNet's 1,000 classes in torchvision's order, so it is not known which is which. "
        "Pass a file with the synsets in the order of the outputs, one a line (with or without "
        "words after it), with --classes; or, for ImageNet with its meta.bin or devkit, "
        "--data imagenet:ROOT."
    )


def _indices(
    present: Sequence[str], index: Mapping[str, int], known: str, place: str
) -> dict[str, int]:
    unknown = [name for name in present if name not in index]
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(present)} folders in {place} are not among {known}: "
            f"{first_few(unknown)}. Remove them, or name all synsets in the order of the outputs "
            "with --classes."
        )
    return {name: index[name] for name in present}


def _are_imagenets(names: Sequence[str]) -> bool:
    """Whether words are those of ImageNet's thousand classes, in torchvision's order.

    A few may differ, but none may stand where torchvision has it elsewhere.
    """
    if len(names) != len(imagenet_synsets()):
        return False
    import_torchvision()
    weights = importlib.import_module("torchvision.models").ResNet18_Weights.DEFAULT
    expected = [_first_word(name) for name in weights.meta["categories"]]
    actual = [_first_word(name) for name in names]
    pairs = list(zip(actual, expected, strict=True))
    in_place = [word for word, here in pairs if word == here]
    others = {word for word, here in pairs if word != here}
    moved = others & set(expected).difference(in_place)
    return len(in_place) >= _SAME_WORDS * len(names) and not moved


def _first_word(name: str) -> str:
    return name.split(",")[0].strip().casefold()
