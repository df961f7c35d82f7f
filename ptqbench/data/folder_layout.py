"""Find the pictures of a folder, and divide them into calibration and evaluation."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptqbench.core.names import first_few
from ptqbench.core.paths import exists, is_dir
from ptqbench.data.image_set import UNLABELLED
from ptqbench.data.sampling import balanced
from ptqbench.errors import UserError

_WEB = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".avif")
_OTHER = (".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset((*_WEB, *_OTHER))
"""File name endings, in lower case, of what counts as a picture."""

EVALUATION_FOLDERS = ("val", "validation", "valid", "test")
"""Names of the folder to evaluate on, the first one found counts."""


@dataclass(frozen=True)
class LabelledFile:
    """A picture of a folder: its path, and the index of its class (or `UNLABELLED`)."""

    path: Path
    label: int


@dataclass(frozen=True)
class Layout:
    """Where the pictures of a folder lie.

    Attributes:
        evaluation: Folder of the classes to evaluate on.
        training: Folder of the classes to calibrate with, or None if there is none.
        labelled: Whether there are classes; else ``evaluation`` holds the pictures itself.
        unused: Names of further folders that could have been evaluated on.
    """

    evaluation: Path
    training: Path | None
    labelled: bool = True
    unused: tuple[str, ...] = ()


def find_layout(root: Path) -> Layout:
    """Tell what is in a folder.

    One folder per class, or ``train/`` and ``val/`` with one folder per class inside, or
    pictures without labels. A folder called ``train`` or ``test`` that holds pictures itself
    is a class.

    Raises:
        UserError: The folder is not there, there is nothing to evaluate on, or some of its
            pictures have labels and others do not.
    """
    if not is_dir(root):
        kind = "is not a folder" if exists(root) else "does not exist"
        raise UserError(f"The image folder {root} {kind}. Pass a folder with one folder per class.")
    training = root / "train"
    found = [root / name for name in EVALUATION_FOLDERS if _is_split(root / name)]
    if found:
        unused = tuple(folder.name for folder in found[1:])
        return Layout(found[0], training if _is_split(training) else None, unused=unused)
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
    classes = [folder.name for folder in _folders(root) if _pictures(folder)]
    if classes:
        raise UserError(
            f"{root} holds pictures itself ({loose.name}, …), which have no label, and folders "
            f"of pictures ({first_few(classes)}), whose names are labels. Keep one kind: move the "
            "loose pictures into the folders of their classes, or out of it; or, to do without "
            "labels, pass a folder that holds nothing but pictures."
        )


def find_splits(folder: Path) -> list[str]:
    """Names of the training and evaluation folders in a folder."""
    return [n for n in ("train", *EVALUATION_FOLDERS) if _is_split(folder / n)]


def class_folders(layout: Layout) -> list[str]:
    """Names of the folders of classes, to evaluate on and to calibrate with, sorted."""
    tops = filter(None, (layout.evaluation, layout.training))
    return sorted({folder.name for top in tops for folder in _folders(top)})


def find_files(top: Path, classes: Sequence[str] | Mapping[str, int]) -> list[LabelledFile]:
    """All pictures below one folder per class, in the order of their paths.

    Args:
        top: Holds the folders; those that are no class are passed over.
        classes: Names of the folders in the order of their labels, or the labels by name.
    """
    label = classes if isinstance(classes, Mapping) else {n: i for i, n in enumerate(classes)}
    folders = [f for f in _folders(top) if f.name in label]
    return [LabelledFile(path, label[f.name]) for f in folders for path in _pictures(f)]


def find_loose(folder: Path) -> list[LabelledFile]:
    """The pictures directly in a folder, without labels, in the order of their paths."""
    return [LabelledFile(path, UNLABELLED) for path in sorted(_direct(folder))]


def hold_out(
    files: Sequence[LabelledFile], root: Path, count: int, seed: int
) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Choose files evenly over the classes, at random but alike on every machine.

    Returns:
        The chosen files (at most ``count``), and the others in their order.
    """
    chosen = _chosen(files, root, count, seed)
    taken = set(chosen)
    return [files[i] for i in chosen], [file for i, file in enumerate(files) if i not in taken]


def sample(
    files: Sequence[LabelledFile], root: Path, count: int, seed: int
) -> tuple[LabelledFile, ...]:
    """At most ``count`` of the files, evenly over the classes, in their order."""
    return tuple(files[i] for i in sorted(_chosen(files, root, count, seed)))


def _chosen(files: Sequence[LabelledFile], root: Path, count: int, seed: int) -> list[int]:
    names = (file.path.relative_to(root).as_posix() for file in files)
    return balanced([file.label for file in files], names, count, seed)


def without_copies(
    files: Sequence[LabelledFile], others: Sequence[LabelledFile]
) -> list[LabelledFile]:
    """The files whose content is not that of any other file."""
    # Only files of equal length can be equal, so that most are never opened.
    sizes = {_size(other.path) for other in others}
    suspects = [file for file in files if _size(file.path) in sizes]
    lengths = {_size(file.path) for file in suspects}
    known = {file_hash(other.path) for other in others if _size(other.path) in lengths}
    copies = {file.path for file in suspects if file_hash(file.path) in known}
    return [file for file in files if file.path not in copies]


def count_repeated(files: Sequence[LabelledFile]) -> int:
    """How many of the files have the content of one before them."""
    sizes = [_size(file.path) for file in files]
    common = {size for size, times in Counter(sizes).items() if times > 1}
    hashes = [file_hash(f.path) for f, size in zip(files, sizes, strict=True) if size in common]
    return len(hashes) - len(set(hashes))


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"The picture {path} cannot be read: {error.strerror}.") from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _folders(top: Path) -> list[Path]:
    return sorted(p for p in _entries(top) if p.is_dir() and not p.name.startswith("."))


def _entries(top: Path) -> list[Path]:
    try:
        return list(top.iterdir())
    except OSError as error:
        raise UserError(f"The folder {top} cannot be read: {error.strerror}.") from None


def _is_split(folder: Path) -> bool:
    return folder.is_dir() and bool(_folders(folder)) and next(_direct(folder), None) is None


def _direct(folder: Path) -> Iterator[Path]:
    return (p for p in _entries(folder) if _is_picture(p.name) and p.is_file())


def _pictures(folder: Path) -> list[Path]:
    found = []
    for parent, _, names in os.walk(folder, followlinks=True):
        found += [Path(parent, name) for name in names if _is_picture(name)]
    return sorted(found)


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
