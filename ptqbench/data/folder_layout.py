"""Find the pictures of a folder, and tell those to evaluate on from those to calibrate with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ptqbench.core.names import first_few
from ptqbench.core.paths import exists, is_dir, is_file
from ptqbench.data.image_set import UNLABELLED
from ptqbench.data.omissions import Omissions
from ptqbench.errors import UserError

_WEB = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".avif")
_OTHER = (".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset((*_WEB, *_OTHER))
"""Extensions, in lower case, of the files that count as pictures."""

EVALUATION_FOLDERS = ("val", "validation", "valid", "test")
"""Names of the folder to evaluate on; the first that exists counts."""


@dataclass(frozen=True)
class LabelledFile:
    """A picture of a folder: its path, and the index of its class (or `UNLABELLED`)."""

    path: Path
    label: int


@dataclass(frozen=True)
class Layout:
    """Places of the pictures of a folder.

    Attributes:
        evaluation: Folder of the classes to evaluate on.
        training: Folder of the classes to calibrate with, or None if there is none.
        labelled: Whether there are classes; else ``evaluation`` holds the pictures itself.
        unused: Names of further folders that could have been evaluated on.
        beside: Names of everything else next to the folders of the parts.
    """

    evaluation: Path
    training: Path | None
    labelled: bool = True
    unused: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def find_layout(root: Path) -> Layout:
    """Determine the layout of a folder.

    One folder per class, or ``train/`` and ``val/`` with one folder per class inside, or
    pictures without labels. A folder called ``train`` or ``test`` that holds pictures itself
    is a class.

    Raises:
        UserError: The folder does not exist, there is nothing to evaluate on, or some of its
            pictures have labels and others do not.
    """
    if not is_dir(root):
        kind = "is not a folder" if exists(root) else "does not exist"
        raise UserError(f"The image folder {root} {kind}. Pass a folder with one folder per class.")
    training = root / "train"
    splits = [root / name for name in EVALUATION_FOLDERS if _is_split(root / name)]
    if splits:
        unused = tuple(folder.name for folder in splits[1:])
        calibration = training if _is_split(training) else None
        parts = {*splits, calibration}
        beside = [f"{p.name}/" if is_dir(p) else p.name for p in _entries(root) if p not in parts]
        return Layout(splits[0], calibration, unused=unused, beside=tuple(sorted(beside)))
    if _is_split(training):
        raise UserError(
            f"{root} has train/ but none of {', '.join(EVALUATION_FOLDERS)} to evaluate on. Add "
            f"one, or pass {training} to hold a share of it out for calibration."
        )
    if (loose := next(_direct(root), None)) is not None:
        _check_no_classes(root, loose)
        return Layout(root, None, labelled=False)
    inside = [p for p in _folders(root) if find_splits(p)]
    if inside:
        raise UserError(f"{root} holds no classes itself. Pass {inside[0]}, which has splits.")
    return Layout(root, None)


def _check_no_classes(root: Path, loose: Path) -> None:
    classes = [folder.name for folder in _folders(root) if _pictures(folder, {_identity(folder)})]
    if classes:
        raise UserError(
            f"{root} holds pictures itself ({loose.name}, …), which have no label, and folders "
            f"of pictures ({first_few(classes)}), whose names are labels. Keep one kind: move the "
            "loose pictures into the folders of their classes, or out of it; or, to do without "
            "labels, pass a folder that contains only pictures."
        )


def find_splits(folder: Path) -> list[str]:
    """Return the names of the training and evaluation folders in a folder."""
    return [n for n in ("train", *EVALUATION_FOLDERS) if _is_split(folder / n)]


def class_folders(layout: Layout) -> list[str]:
    """Return the names of the class folders, to evaluate on and to calibrate with, sorted."""
    tops = filter(None, (layout.evaluation, layout.training))
    return sorted({folder.name for top in tops for folder in _folders(top)})


def find_files(
    top: Path,
    classes: Sequence[str] | Mapping[str, int],
    omissions: Omissions | None = None,
) -> list[LabelledFile]:
    """Find all pictures below one folder per class, in the order of their paths.

    A folder is entered once, even if links lead to it again: a link to another class, or to a
    folder above, is not followed. Hidden files and folders are passed over.

    Args:
        top: Holds the folders; those that are not a class are passed over.
        classes: Names of the folders in the order of their labels, or the labels by name.
        omissions: Takes what is passed over.

    Raises:
        UserError: A folder cannot be read.
    """
    label = classes if isinstance(classes, Mapping) else {n: i for i, n in enumerate(classes)}
    omissions = Omissions(top) if omissions is None else omissions
    _pass_over(top, omissions)
    folders = [f for f in _folders(top) if f.name in label]
    omissions.unknown += [*_direct(top), *(f for f in _folders(top) if f.name not in label)]
    entered = {_identity(folder) for folder in (top, *folders)}
    files = []
    for folder in folders:
        pictures = _pictures(folder, set(entered), _refuse, omissions)
        files += [LabelledFile(path, label[folder.name]) for path in pictures]
        if not pictures:
            omissions.empty.append(folder)
    return files


def find_loose(folder: Path, omissions: Omissions | None = None) -> list[LabelledFile]:
    """Find the pictures directly in a folder, without labels, in the order of their paths.

    Args:
        folder: Holds them.
        omissions: Takes what is passed over.
    """
    if omissions is not None:
        _pass_over(folder, omissions)
        omissions.empty += _folders(folder)
    return [LabelledFile(path, UNLABELLED) for path in sorted(_direct(folder))]


def _pass_over(folder: Path, omissions: Omissions) -> None:
    """Record what is directly in a folder, hidden or a file of another kind."""
    for path in _entries(folder):
        if _is_hidden(path.name):
            omissions.hidden.append(path)
        elif not _is_picture(path.name) and not is_dir(path):
            omissions.others.append(path)


def _folders(top: Path) -> list[Path]:
    return sorted(p for p in _entries(top) if is_dir(p) and not _is_hidden(p.name))


def _entries(top: Path) -> list[Path]:
    try:
        return list(top.iterdir())
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"The folder {error.filename} cannot be read: {error.strerror}.") from None


def _is_split(folder: Path) -> bool:
    return is_dir(folder) and bool(_folders(folder)) and next(_direct(folder), None) is None


def _direct(folder: Path) -> Iterator[Path]:
    return (p for p in _entries(folder) if _is_picture(p.name) and is_file(p))


def _pictures(
    folder: Path,
    entered: set[tuple[int, int]],
    on_error: Callable[[OSError], object] | None = None,
    omissions: Omissions | None = None,
) -> list[Path]:
    """Find the pictures below a folder, without those of folders that were entered already."""
    omissions = Omissions(folder) if omissions is None else omissions
    pictures = []
    for parent, folders, names in os.walk(folder, onerror=on_error, followlinks=True):
        for name in names:
            if _is_picture(name):
                pictures.append(Path(parent, name))
            else:
                kind = omissions.hidden if _is_hidden(name) else omissions.others
                kind.append(Path(parent, name))
        new = []
        for name in sorted(folders):
            identity = _identity(Path(parent, name))
            if _is_hidden(name):
                omissions.hidden.append(Path(parent, name))
            elif identity in entered:
                omissions.repeated.append(Path(parent, name))
            else:
                entered.add(identity)
                new.append(name)
        folders[:] = new
    return sorted(pictures)


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode of a folder, the same by whichever path it is reached."""
    try:
        status = folder.stat()
    except OSError:
        return (-1, -1)
    return (status.st_dev, status.st_ino)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_picture(name: str) -> bool:
    return not _is_hidden(name) and os.path.splitext(name)[1].lower() in SUFFIXES
