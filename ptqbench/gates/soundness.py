"""Decide whether float32 itself is sound enough for int8 to be compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptqbench.core.names import first_few
from ptqbench.measurement.intervals import proportion

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy_record import Accuracy

CONSTANT_SHARE = 0.99
"""Share of images in one predicted class from which float32 counts as constant.

A network that reacts to its input predicts rare classes about as often as they occur. One whose
input is wrong (channels, scale, mean) mostly predicts one class for everything, with a few
exceptions among thousands, so the share must be below 100 %.
"""
RARE_FACTOR = 10
"""On labelled images, the other classes must also be this much rarer than among the labels.

Without it, a sound network would count as constant on data that are 99.5 % one class.
"""


def predicts_one_class(accuracy: Accuracy) -> bool:
    """Whether float32 (almost) always predicts the same class, although the images differ.

    Then int8 agrees with it as soon as it is constant too, whatever became of the weights.
    Labels of a single class, one output and a single image cannot show this.
    """
    predictions, labels = accuracy.predictions, accuracy.labels
    if predictions is None or accuracy.classes == 1 or accuracy.n == 1:
        return False
    others = accuracy.n - predictions.commonest
    if others > (1 - CONSTANT_SHARE) * accuracy.n:
        return False
    if labels is None:
        return True
    return labels.distinct > 1 and RARE_FACTOR * others <= accuracy.n - labels.commonest


def is_guessing(accuracy: Accuracy) -> bool:
    """Whether float32 is not shown to do better than a constant prediction of one class."""
    if accuracy.top1 is None:
        return False
    right = accuracy.top1.both + accuracy.top1.only_float32
    # With one output everything is right by chance, and nothing more can be known.
    if right == 0 or accuracy.classes == 1:
        return right == 0
    return proportion(right, accuracy.n).low <= chance(accuracy)


def chance(accuracy: Accuracy) -> float:
    """Share of images that the best constant prediction gets right.

    It is the share of the commonest label. If all labels are of one class, every constant
    prediction of it would be right, so a uniform guess among the outputs counts instead.
    """
    labels = accuracy.labels
    if labels is not None and labels.distinct > 1:
        return labels.commonest / accuracy.n
    return 1 / accuracy.classes if accuracy.classes else 0.0


def alike_reason(accuracy: Accuracy) -> str:
    """Why nothing can be concluded from pictures that are all alike; empty if they differ."""
    # The first has none before it.
    if not accuracy.alike or accuracy.alike < CONSTANT_SHARE * (accuracy.n - 1):
        return ""
    pictures = "The picture is" if accuracy.n == 1 else f"The {accuracy.n:,} pictures are"
    return (
        f"{pictures} of one colour or all alike, so that predictions on them prove nothing. Look "
        "at the files, how they are decoded (floats, bit depth) and the crop."
    )


def constant_reason(accuracy: Accuracy) -> str:
    """Why nothing can be concluded from a float32 that predicts one class; empty if it is sound."""
    if not predicts_one_class(accuracy):
        return ""
    assert accuracy.predictions is not None
    share = accuracy.predictions.commonest / accuracy.n
    reason = f"float32 itself predicts the same class for {share:.1%} of {accuracy.n:,} images"
    if accuracy.labels is None:
        return (
            f"{reason}, so agreement with it proves nothing. Check the preprocessing (size, mean, "
            "std) and that the weights are trained; if all the images show the same class, add "
            "images of others."
        )
    return (
        f"{reason}, although their labels are of {accuracy.labels.distinct} classes, so comparing "
        "int8 with it proves nothing. Check the preprocessing (size, mean, std), that the weights "
        "are trained, and that the classes of the data are those of the weights."
    )


def guessing_reason(accuracy: Accuracy) -> str:
    """Why there is no accuracy to keep if float32 only guesses; empty if it does not."""
    if not is_guessing(accuracy):
        return ""
    return (
        f"float32 itself gets {accuracy.float32_top1:.1%} of {accuracy.n:,} images right, "
        f"which is no better than guessing: a constant prediction gets {chance(accuracy):.1%}, "
        "and the interval does not exclude it. Check that the classes of the weights and of the "
        "data are the same and in the same order, and the preprocessing; or add images."
    )


def missing_classes_reason(accuracy: Accuracy) -> str:
    """Which classes have images in the data but none evaluated; empty if there are none."""
    missing = accuracy.missing_classes
    if not missing:
        return ""
    classes = "1 class has" if len(missing) == 1 else f"{len(missing):,} classes have"
    return (
        f"{classes} images in the data, but none among the {accuracy.n:,} evaluated: "
        f"{first_few(missing)}. Accuracy would say nothing about "
        f"{'it' if len(missing) == 1 else 'them'}. Add images to evaluate that are not "
        "calibration images, or raise --limit to at least one image per class."
    )
