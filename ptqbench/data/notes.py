"""What a reader of a result must know about its images, as sentences."""

from __future__ import annotations

from collections.abc import Sequence

from ptqbench.core.names import first_few

UNLABELLED_NOTE = "The images have no labels: agreement and SQNR decide, accuracy does not."


def calibration_note(training: str | None) -> str:
    """Where calibration images come from, and that none of them is evaluated.

    Args:
        training: Name of the training part; None: there is none.
    """
    if training is None:
        source = "There is no train folder: calibration images were held out of evaluation"
    else:
        source = f"Calibration images come from {training}"
    return f"{source}. By content hash, none of them is evaluated."


def copies_note(copies: int) -> tuple[str, ...]:
    """Evaluation images that were dropped because they are calibration images too."""
    if not copies:
        return ()
    return (f"Copies of calibration images left out of evaluation: {copies}.",)


def repeated_note(repeated: int) -> tuple[str, ...]:
    """Evaluation images that are there more than once; they stay, as the set has them."""
    if not repeated:
        return ()
    return (
        f"Evaluation images that are copies of other ones: {repeated}. Each counts, so the "
        "intervals are a little too short.",
    )


def absent_note(labels: Sequence[int], classes: Sequence[str]) -> tuple[str, ...]:
    """Classes that are not evaluated for want of images."""
    absent = sorted(set(range(len(classes))) - set(labels))
    if not absent:
        return ()
    names = first_few([classes[label] for label in absent])
    return (f"{len(absent)} of {len(classes)} classes have no evaluation images: {names}.",)


def sampled_note(used: int, there: int, seed: int) -> tuple[str, ...]:
    """What a sample was taken from; nothing where all images are used."""
    if used == there:
        return ()
    return (
        f"Evaluated on a sample of {used:,} of the {there:,} images, chosen evenly over the "
        f"classes (seed {seed}).",
    )
