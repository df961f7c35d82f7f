"""When enough images have been seen for the gates that judge accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ptqbench.gates.accuracy import is_guessing, share_kept
from ptqbench.gates.base import Thresholds, Verdict, decide
from ptqbench.measurement.statistics import proportion

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy import Accuracy

STOPPING_CONFIDENCE = 0.99
"""Level at which intervals must be clear: looking repeatedly would err too often at 95 %."""


def accuracy_settled(thresholds: Thresholds) -> Callable[[Accuracy], bool]:
    """A test for ``measure_accuracy``: are the accuracy and agreement verdicts clear?

    It is also settled where float32 is guessing, which more images would not change.
    """

    def settled(accuracy: Accuracy) -> bool:
        if is_guessing(accuracy):
            return True
        agreed = round(accuracy.agreement.value * accuracy.agreement.n)
        verdicts = (
            decide(share_kept(accuracy, STOPPING_CONFIDENCE), thresholds.accuracy),
            decide(proportion(agreed, accuracy.n, STOPPING_CONFIDENCE), thresholds.agreement),
        )
        return Verdict.INCONCLUSIVE not in verdicts

    return settled
