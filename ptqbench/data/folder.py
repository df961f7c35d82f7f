"""A folder of photographs as images to calibrate with and evaluate on.

One folder per class inside, or pictures alone, which have no labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.data.layout import (
    LabelledFile,
    Layout,
    class_names,
    file_hash,
    find_files,
    find_layout,
    find_loose,
    hold_out,
    sample,
    without_copies,
)
from ptqbench.data.reading import Reading
from ptqbench.data.sampling import held_out_share
from ptqbench.data.sets import Data, listed, sampled_note
from ptqbench.data.single import load_image
from ptqbench.errors import UserError
from ptqbench.models.preprocessing import Preprocessing

_BROKEN_SHARE = 0.01
"""Share of pictures that may be undecodable before the set is refused."""


class FolderImages:
    """Pictures decoded in batches as they are needed; none are kept.

    A picture that cannot be decoded is left out of its batch, and counted in ``broken``.

    Attributes:
        name: The folder.
        classes: Class names; labels index them.
        count: Pictures found.
        limit: The same: a folder has no reserve for top-ups.
        labelled: Whether the pictures have labels; else each label is -1.

    Args:
        name: The folder, for messages.
        files: The pictures with their labels.
        classes: Class names.
        preprocessing: What is done to the pictures.
        labelled: Whether they have labels.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[LabelledFile],
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        labelled: bool = True,
    ) -> None:
        self.name = name
        self.classes = classes
        self.labelled = labelled
        self.count = len(files)
        self.limit = len(files)
        self._files = tuple(files)
        self._preprocessing = preprocessing
        self._broken: dict[Path, str] = {}

    @property
    def broken(self) -> tuple[Path, ...]:
        """Pictures that could not be decoded so far, in order of their paths."""
        return tuple(sorted(self._broken))

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Stream normalised images ``N×3×H×W`` float32 and labels ``N`` int64.

        Raises:
            UserError: More than 1 % of the pictures cannot be decoded.
        """
        if not 0 <= start <= stop <= self.limit:
            raise ValueError(f"{self.name} has images 0 … {self.limit - 1}, not {start} … {stop}.")
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for first in range(start, stop, batch_size):
                files = self._files[first : min(first + batch_size, stop)]
                decoded = list(pool.map(self._decode, files))
                self._check_broken()
                kept = [(d, f.label) for d, f in zip(decoded, files, strict=True) if d is not None]
                if kept:
                    pixels = torch.stack([image for image, _ in kept])
                    labels = torch.tensor([label for _, label in kept])
                    yield self._preprocessing.normalise(pixels), labels

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """SHA-256 of the bytes of each file, in hexadecimal."""
        return (file_hash(file.path) for file in self._files[start:stop])

    def _decode(self, file: LabelledFile) -> Tensor | None:
        try:
            return self._preprocessing.pixels(load_image(file.path))
        except UserError as error:
            self._broken[file.path] = str(error)
            return None

    def _check_broken(self) -> None:
        if len(self._broken) > _BROKEN_SHARE * self.count:
            names = listed([str(path) for path in self.broken])
            raise UserError(
                f"{len(self._broken)} of the {self.count} pictures in {self.name} cannot be "
                f"decoded, more than 1 %: {names}. Repair or remove them."
            )


def open_folder(
    path: Path,
    preprocessing: Preprocessing,
    *,
    classes: tuple[str, ...] | None,
    num_classes: int,
    seed: int = 0,
    calibration_images: int = 512,
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
        The images; ``notes`` says what was left out.

    Raises:
        UserError: There is no such folder, it has no pictures, its classes are not those of
            the weights, or only some of its pictures have labels.
    """
    reading = reading or Reading()
    layout = find_layout(path)
    if layout.labelled:
        names = class_names(layout, classes, num_classes)
        evaluation = find_files(layout.evaluation, names)
    else:
        names = classes or tuple(map(str, range(num_classes)))
        evaluation = find_loose(layout.evaluation)
    if layout.training is not None:
        training = find_files(layout.training, names)
        calibration, _ = hold_out(training, layout.training, calibration_images, seed)
    else:
        share = held_out_share(len(evaluation), calibration_images)
        calibration, evaluation = hold_out(evaluation, layout.evaluation, share, seed)
    unique = without_copies(evaluation, calibration)
    used = tuple(unique)
    sampled: tuple[str, ...] = ()
    if reading.limit is not None:
        used = sample(unique, layout.evaluation, reading.limit, seed)
        sampled = sampled_note(len(used), len(unique), seed)
    if not calibration or not unique:
        place = layout.training if layout.training and not calibration else layout.evaluation
        raise UserError(
            f"{place} has too few pictures. Calibration and evaluation need at least one each "
            "(.jpg, .png, .webp, …), in one folder per class or, without labels, in none."
        )
    return Data(
        str(path),
        FolderImages(f"{path} calibration", calibration, names, preprocessing, layout.labelled),
        FolderImages(f"{path} evaluation", used, names, preprocessing, layout.labelled),
        (*_notes(layout, len(evaluation) - len(unique), unique, names), *sampled),
    )


def _notes(
    layout: Layout, copies: int, evaluation: Sequence[LabelledFile], classes: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    if not layout.labelled:
        notes.append("The images have no labels: agreement and SQNR decide, accuracy does not.")
        notes.append("Calibration images were held out of evaluation.")
    elif layout.training is None:
        notes.append("There is no train folder: calibration images were held out of evaluation.")
    if copies:
        notes.append(f"Copies of calibration images left out of evaluation: {copies}.")
    absent = sorted(set(range(len(classes))) - {file.label for file in evaluation})
    if absent and layout.labelled:
        names = listed([classes[label] for label in absent])
        notes.append(f"{len(absent)} of {len(classes)} classes have no evaluation images: {names}.")
    return tuple(notes)
