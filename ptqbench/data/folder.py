"""A folder of photographs as images to calibrate with and evaluate on.

One folder per class inside, or pictures alone, which have no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ptqbench.core.names import first_few
from ptqbench.data.class_matching import ClassMap, match_classes
from ptqbench.data.file_source import FileSource
from ptqbench.data.folder_layout import (
    Layout,
    class_folders,
    find_files,
    find_layout,
    find_loose,
)
from ptqbench.data.image_set import Data
from ptqbench.data.notes import UNLABELLED_NOTE, calibration_note
from ptqbench.data.omissions import Omissions
from ptqbench.data.split import DataOptions, split
from ptqbench.errors import UserError


def open_folder(path: Path, options: DataOptions) -> Data:
    """Open a folder of pictures.

    It has one folder per class, or ``train/`` and ``val/`` of that kind; or it contains the
    pictures themselves, which then have no labels. The names of the folders are matched to the
    classes of the weights; if these are not known, the sorted names are the classes, and
    without folders the numbers of the outputs.

    Args:
        path: The folder.
        options: How it is opened.

    Returns:
        The images; ``notes`` says where they come from and what was left out.

    Raises:
        UserError: There is no such folder, it has no pictures, its classes are not those of
            the weights, or only some of its pictures have labels.
    """
    layout = find_layout(path)
    if layout.labelled:
        folders = _folders_or_refuse(class_folders(layout), layout.evaluation)
        matched = match_classes(
            folders, options.classes, options.num_classes, str(layout.evaluation)
        )
    else:
        matched = ClassMap(options.classes or tuple(map(str, range(options.num_classes))), {})
    return open_layout(str(path), layout, matched, options)


def open_layout(name: str, layout: Layout, matched: ClassMap, options: DataOptions) -> Data:
    """Open the pictures of a folder whose layout and classes are known.

    Args:
        name: Name of the data, for messages and reports.
        layout: Where the pictures are.
        matched: Labels of the class folders.
        options: How the folder is opened.

    Raises:
        UserError: There are too few pictures.
    """
    tops = [top for top in (layout.evaluation, layout.training) if top is not None]
    omissions = {top: Omissions(top) for top in tops}
    evaluation, *training = (_source(layout, top, matched, omissions[top]) for top in tops)
    notes = _layout_notes(layout, matched)
    notes += [note for each in omissions.values() for note in each.note()]
    part = training[0] if training else None
    return split(name, evaluation, part, matched.names, options, notes)


def _source(layout: Layout, top: Path, matched: ClassMap, omissions: Omissions) -> FileSource:
    if not layout.labelled:
        return FileSource(top, find_loose(top, omissions))
    return FileSource(top, find_files(top, matched.labels, omissions))


def _layout_notes(layout: Layout, matched: ClassMap) -> list[str]:
    notes = [] if layout.labelled else [UNLABELLED_NOTE]
    notes.append(calibration_note(f"{layout.training.name}/" if layout.training else None))
    if layout.unused:
        others = ", ".join(f"{name}/" for name in layout.unused)
        notes.append(f"{layout.evaluation.name}/ is evaluated; {others} is not used.")
    if layout.beside:
        notes.append(f"Passed over beside {layout.evaluation}: {first_few(layout.beside, 3)}.")
    if matched.note:
        notes.append(matched.note)
    return notes


def _folders_or_refuse(folders: Sequence[str], place: Path) -> Sequence[str]:
    """Return the names of the class folders.

    Raises:
        UserError: There are none.
    """
    if not folders:
        raise UserError(
            f"{place} has no folders and no pictures (.jpg, .png, .webp, …). Pass a "
            "folder with one folder per class, or one that contains pictures without labels."
        )
    return folders
