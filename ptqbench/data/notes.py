"""Notes on a data set that a reader of a result must know, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ptqbench.core.names import first_few

UNLABELLED_NOTE = (
    "The images have no labels: the verdict is based on agreement and SQNR; accuracy is not "
    "evaluated."
)


def calibration_note(training: str | None) -> str:
    """Say where calibration images come from, and that none of them is evaluated.

    Args:
        training: Name of the training part; None: there is none.
    """
    if training is None:
        source = (
            "There is no train folder: calibration images were held out of evaluation, at most a "
            "fifth of each class"
        )
    else:
        source = f"Calibration images come from {training}"
    return f"{source}. By content hash, none of them is evaluated."


def copies_note(copies: int) -> tuple[str, ...]:
    """Count the evaluation images that were dropped because they are calibration images too."""
    if not copies:
        return ()
    return (f"Copies of calibration images left out of evaluation: {copies}.",)


def repeated_note(repeated: int) -> tuple[str, ...]:
    """Count the evaluation images that occur more than once; they stay, as the set has them."""
    if not repeated:
        return ()
    return (
        f"Evaluation images that are copies of other ones: {repeated}. Each counts, so the "
        "intervals are a little too short.",
    )


def unseen_notes(expected: set[int], seen: set[int], classes: Sequence[str]) -> tuple[str, ...]:
    """Name the classes that are not evaluated.

    Args:
        expected: Labels that have images.
        seen: Labels that have evaluation images.
        classes: Class names of the outputs.
    """
    notes = []
    if absent := _named(set(range(len(classes))) - expected, classes):
        notes.append(f"{absent[0]} of {len(classes):,} classes have no images: {absent[1]}.")
    if unseen := _named(expected - seen, classes):
        notes.append(
            f"{unseen[0]} of {len(classes):,} classes have images, but none is evaluated: "
            f"{unseen[1]}."
        )
    return tuple(notes)


def _named(labels: Iterable[int], classes: Sequence[str]) -> tuple[str, str] | None:
    names = [classes[label] for label in sorted(labels)]
    return (f"{len(names):,}", first_few(names)) if names else None


def sampled_note(used: int, total: int, seed: int) -> tuple[str, ...]:
    """Say what a sample was taken from, and how; nothing if all images are used."""
    if used == total:
        return ()
    return (
        f"Evaluated on a sample of {used:,} of the {total:,} images, which keeps the shares of "
        f"the classes and has at least one image of each if it is large enough (seed {seed}).",
    )
