"""A folder of photographs as images to calibrate with and evaluate on.

One folder per class inside, or pictures alone, which have no labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from ptqbench.data.class_matching import ClassMap, folders_or_refuse, match_classes
from ptqbench.data.decode import load_image
from ptqbench.data.folder_layout import (
    LabelledFile,
    Layout,
    class_folders,
    count_repeated,
    file_hash,
    find_files,
    find_layout,
    find_loose,
    hold_out,
    sample,
    without_copies,
)
from ptqbench.data.image_set import Data
from ptqbench.data.notes import (
    UNLABELLED_NOTE,
    absent_note,
    calibration_note,
    copies_note,
    repeated_note,
    sampled_note,
)
from ptqbench.data.picture_set import Pictures
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.reading import Reading
from ptqbench.data.sampling import held_out_share
from ptqbench.errors import UserError

CALIBRATION_IMAGES = 512
"""Calibration images that are set apart; a recipe takes as many of them as it wants."""


class FolderImages(Pictures):
    """Pictures in files.

    Args:
        name: The folder, for messages.
        files: The pictures with their labels.
        classes: Class names.
        preprocessing: What is done to the pictures.
        labelled: Whether they have labels.
        reading: How many threads decode, and what may be broken.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[LabelledFile],
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        labelled: bool = True,
        reading: Reading | None = None,
    ) -> None:
        labels = [file.label for file in files]
        super().__init__(name, labels, classes, preprocessing, labelled, reading)
        self._files = tuple(files)

    def called(self, position: int) -> str:
        """The path of a picture."""
        return str(self._files[position].path)

    def image(self, position: int) -> Image.Image:
        """The decoded picture.

        Raises:
            UserError: It cannot be decoded.
        """
        return load_image(self._files[position].path)

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """SHA-256 of the bytes of each file, in hexadecimal; one file is read at a time."""
        return (file_hash(file.path) for file in self._files[start:stop])


def open_folder(
    path: Path,
    preprocessing: Preprocessing,
    *,
    classes: tuple[str, ...] | None,
    num_classes: int,
    seed: int = 0,
    calibration_images: int = CALIBRATION_IMAGES,
    reading: Reading | None = None,
) -> Data:
    """Open a folder of pictures.

    It has one folder per class, or ``train/`` and ``val/`` of that kind; or it holds pictures
    itself, which then have no labels. Calibration images come from ``train/``; without it, a
    share of at most a fifth is taken out of the evaluation images. They are chosen evenly
    over the classes.

    Args:
        path: The folder.
        preprocessing: What is done to the pictures.
        classes: Class names of the weights in output order, which the folders' names are
            matched to, or None: then the sorted names of the folders are the classes, and
            without folders the numbers of the outputs.
        num_classes: Number of outputs of the weights.
        seed: Chooses the calibration images, and the sample.
        calibration_images: How many calibration images to take, at most.
        reading: How many evaluation images to use, and how they are decoded.

    Returns:
        The images; ``notes`` says where they come from and what was left out.

    Raises:
        UserError: There is no such folder, it has no pictures, its classes are not those of
            the weights, or only some of its pictures have labels.
    """
    layout = find_layout(path)
    if layout.labelled:
        folders = folders_or_refuse(class_folders(layout), layout.evaluation)
        matched = match_classes(folders, classes, num_classes, str(layout.evaluation))
    else:
        matched = ClassMap(classes or tuple(map(str, range(num_classes))), {})
    return divide(
        str(path),
        layout,
        matched,
        preprocessing,
        seed=seed,
        calibration_images=calibration_images,
        reading=reading,
    )


def divide(
    name: str,
    layout: Layout,
    matched: ClassMap,
    preprocessing: Preprocessing,
    *,
    seed: int = 0,
    calibration_images: int = CALIBRATION_IMAGES,
    reading: Reading | None = None,
) -> Data:
    """Divide the pictures of a folder into calibration and evaluation.

    Args:
        name: Of the data, for messages and reports.
        layout: Where the pictures lie.
        matched: What the folders of the classes mean.
        preprocessing: What is done to the pictures.
        seed: Chooses the calibration images, and the sample.
        calibration_images: How many calibration images to take, at most.
        reading: How many evaluation images to use, and how they are decoded.

    Raises:
        UserError: There are too few pictures.
    """
    reading = reading or Reading()
    evaluation = _find(layout, layout.evaluation, matched)
    if layout.training is not None:
        training = _find(layout, layout.training, matched)
        calibration, _ = hold_out(training, layout.training, calibration_images, seed)
    else:
        share = held_out_share(len(evaluation), calibration_images)
        calibration, evaluation = hold_out(evaluation, layout.evaluation, share, seed)
    unique = without_copies(evaluation, calibration)
    if not calibration or not unique:
        place = layout.training if layout.training and not calibration else layout.evaluation
        raise UserError(
            f"{place} has too few pictures. Calibration and evaluation need at least one each "
            "(.jpg, .png, .webp, …), in one folder per class or, without labels, in none."
        )
    limit = len(unique) if reading.limit is None else reading.limit
    used = sample(unique, layout.evaluation, limit, seed)
    notes = (
        *_layout_notes(layout, matched),
        *copies_note(len(evaluation) - len(unique)),
        *sampled_note(len(used), len(unique), seed),
        *repeated_note(count_repeated(used)),
        *(absent_note([f.label for f in used], matched.names) if layout.labelled else ()),
    )

    def images(part: str, files: Sequence[LabelledFile]) -> FolderImages:
        title = f"{name} {part}"
        return FolderImages(title, files, matched.names, preprocessing, layout.labelled, reading)

    return Data(name, images("calibration", calibration), images("evaluation", used), notes)


def _find(layout: Layout, top: Path, matched: ClassMap) -> list[LabelledFile]:
    return find_files(top, matched.labels) if layout.labelled else find_loose(top)


def _layout_notes(layout: Layout, matched: ClassMap) -> list[str]:
    notes = [] if layout.labelled else [UNLABELLED_NOTE]
    notes.append(calibration_note(f"{layout.training.name}/" if layout.training else None))
    if layout.unused:
        others = ", ".join(f"{name}/" for name in layout.unused)
        notes.append(f"{layout.evaluation.name}/ is evaluated; {others} is not used.")
    if matched.note:
        notes.append(matched.note)
    return notes
