"""Divide pictures into calibration and evaluation, whatever they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ptqbench.data.image_set import UNLABELLED, Data, proven_disjoint
from ptqbench.data.notes import copies_note, repeated_note, sampled_note, unseen_notes
from ptqbench.data.picture_set import Pictures
from ptqbench.data.picture_source import PictureSource, count_repeated, without_copies
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.sampling import balanced, held_out, proportional
from ptqbench.errors import UserError
from ptqbench.settings.run_settings import RunSettings

CALIBRATION_IMAGES = 512
"""Calibration images that are set apart; a recipe takes as many of them as it needs."""


@dataclass(frozen=True)
class DataOptions:
    """How a data set is opened.

    Attributes:
        preprocessing: Preprocessing of the pictures.
        classes: Class names of the weights in output order, which the classes of the data are
            matched to; None: unknown, and the names of the data are taken.
        num_classes: Number of outputs of the weights.
        seed: Seed of the choice of calibration images, and of the sample.
        calibration_images: How many calibration images to take, at most.
        reading: How many evaluation images to use, and how they are decoded.
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    num_classes: int
    seed: int = 0
    calibration_images: int = CALIBRATION_IMAGES
    reading: RunSettings = field(default_factory=RunSettings)


def split(
    name: str,
    evaluation: PictureSource,
    training: PictureSource | None,
    classes: tuple[str, ...],
    options: DataOptions,
    notes: Sequence[str] = (),
) -> Data:
    """Divide pictures into calibration and evaluation, with no content in both.

    Calibration images come from the training part, evenly over the classes. Without one, at most
    a fifth of each class is held out of evaluation. A sample keeps the shares of the classes.

    Args:
        name: Name of the data, for messages and reports.
        evaluation: Pictures to evaluate on.
        training: Pictures to calibrate with, or None.
        classes: Class names of the outputs of the weights.
        options: How the data set is opened.
        notes: Further notes for a reader of the result.

    Raises:
        UserError: There are too few pictures.
    """
    expected = {*evaluation.labels, *(training.labels if training else ())} - {UNLABELLED}
    calibration, remaining = _calibration(evaluation, training, options)
    unique = remaining.subset(without_copies(remaining, calibration))
    if not calibration or not unique:
        place = evaluation.place if training is None or calibration else training.place
        raise UserError(
            f"{place} has too few pictures. Calibration and evaluation need at least one each "
            "(.jpg, .png, .webp, …), in one folder per class or, without labels, in none."
        )
    sample = _sample(unique, options)
    notes = (
        *notes,
        *copies_note(len(remaining) - len(unique)),
        *sampled_note(len(sample), len(unique), options.seed),
        *repeated_note(count_repeated(sample)),
        *(unseen_notes(expected, set(sample.labels), classes) if expected else ()),
    )
    labelled = bool(expected)

    def pictures(part: str, source: PictureSource) -> Pictures:
        return Pictures(
            f"{name} {part}",
            source,
            classes,
            options.preprocessing,
            labelled=labelled,
            reading=options.reading,
            expected_labels=frozenset(expected),
        )

    data = Data(name, pictures("calibration", calibration), pictures("evaluation", sample), notes)
    return proven_disjoint(data)


def _calibration(
    evaluation: PictureSource, training: PictureSource | None, options: DataOptions
) -> tuple[PictureSource, PictureSource]:
    """Choose the calibration images; return them and the remaining evaluation images."""
    count, seed = options.calibration_images, options.seed
    if training is not None:
        chosen = balanced(training.labels, training.keys(), count, seed)
        return training.subset(chosen), evaluation
    chosen = held_out(evaluation.labels, evaluation.keys(), count, seed)
    taken = set(chosen)
    others = [position for position in range(len(evaluation)) if position not in taken]
    return evaluation.subset(chosen), evaluation.subset(others)


def _sample(source: PictureSource, options: DataOptions) -> PictureSource:
    limit = options.reading.limit
    if limit is None or limit >= len(source):
        return source
    chosen = proportional(source.labels, source.keys(), limit, options.seed)
    return source.subset(sorted(chosen))
