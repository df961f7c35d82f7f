"""ImageNet, read by torchvision's own dataset class."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ptqbench.core.names import first_few
from ptqbench.core.paths import is_dir
from ptqbench.data.class_matching import ClassMap
from ptqbench.data.folder import open_layout
from ptqbench.data.folder_layout import Layout, find_loose
from ptqbench.data.image_set import Data
from ptqbench.data.split import DataOptions
from ptqbench.data.torchvision_datasets import import_datasets, stdout_to_stderr
from ptqbench.errors import UserError

_VALIDATION = "ILSVRC2012_val_"
"""Beginning of the names of the validation images."""


def open_imagenet(root: Path, options: DataOptions) -> Data:
    """Open ImageNet: evaluate on ``val/``; calibrate with ``train/``, else with a share of it.

    torchvision unpacks the validation images and the devkit, if only their archives are
    there. The training archive is left alone: a few hundred images are not worth 138 GB.

    Args:
        root: Folder in the form that torchvision's ``ImageNet`` expects.
        options: How it is opened.

    Raises:
        UserError: Something is missing or damaged, or the weights have other classes.
    """
    import_datasets()
    imagenet = importlib.import_module("torchvision.datasets.imagenet")
    try:
        with stdout_to_stderr():
            dataset = imagenet.ImageNet(str(root), split="val")
            words: Mapping[str, Sequence[str]] = imagenet.load_meta_file(str(root))[0]
    except KeyError as error:
        raise UserError(
            f"{root / 'val'} contains folder {error.args[0]}, which is not listed in "
            f"{root / 'meta.bin'}. Move it out of there."
        ) from None
    except Exception as error:  # what a damaged meta.bin raises is anybody's guess
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"ImageNet in {root} cannot be read: {reason}.") from None
    evaluation, train = Path(dataset.split_folder), root / "train"
    _check_unpacked(evaluation)
    matched = _match_synsets(words, options.classes, options.num_classes, root)
    layout = Layout(evaluation, train if is_dir(train) else None)
    return open_layout(f"imagenet:{root}", layout, matched, options)


def _check_unpacked(folder: Path) -> None:
    """Check that all validation images are in the folders of their classes.

    torchvision unpacks them side by side and then moves them there, one by one.

    Raises:
        UserError: Some are not there yet.
    """
    rest = [file for file in find_loose(folder) if file.path.name.startswith(_VALIDATION)]
    if rest:
        raise UserError(
            f"{len(rest):,} images in {folder} are not in the folder of a class, such as "
            f"{rest[0].path.name}: the archive is being unpacked, or that was interrupted. If it "
            f"was, remove {folder} and keep the archive, which is then unpacked again."
        )


def _match_synsets(
    words: Mapping[str, Sequence[str]], classes: Sequence[str] | None, num_classes: int, root: Path
) -> ClassMap:
    """Match the synsets in sorted order to the outputs, as torchvision numbers them.

    Raises:
        UserError: The weights have another number of outputs, or other classes in that order.
    """
    synsets = sorted(words)
    names = tuple(words[synset][0] for synset in synsets)
    if len(synsets) != num_classes:
        raise UserError(
            f"ImageNet in {root} has {len(synsets)} classes, but the weights have {num_classes} "
            "outputs. Pass the images that belong to the weights with --data."
        )
    if classes is not None:
        pairs = zip(classes, synsets, strict=True)
        known = sum(_same(name, synset, words[synset]) for name, synset in pairs)
        # A few of torchvision's names differ from ImageNet's, to tell two cranes apart.
        if known < 0.9 * len(synsets):
            raise UserError(
                f"Only {known} of the weights' {len(classes)} classes ({first_few(classes, 3)}) "
                f"have ImageNet's names in the order of its synsets ({first_few(names, 3)}), so "
                "the outputs mean something else. Pass the images that belong to the weights "
                "with --data."
            )
    labels = {synset: index for index, synset in enumerate(synsets)}
    return ClassMap(tuple(classes) if classes is not None else names, labels)


def _same(name: str, synset: str, words: Sequence[str]) -> bool:
    first = name.split(",")[0].strip().casefold()
    return name.split(" ")[0] == synset or any(first == word.casefold() for word in words)
