"""Stopping rule: when enough images have been seen for the gates that judge accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ptqbench.gates import accuracy as accuracy_gate
from ptqbench.gates import agreement as agreement_gate
from ptqbench.gates.conditions import worst
from ptqbench.gates.soundness import is_guessing, predicts_one_class
from ptqbench.gates.verdict import Verdict

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy_record import Accuracy
    from ptqbench.settings.thresholds import Thresholds

STOPPING_CONFIDENCE = 0.99
"""Level at which intervals must be clear: looking repeatedly would err too often at 95 %."""


def stopping_rule(thresholds: Thresholds) -> Callable[[Accuracy], bool]:
    """Build a test for ``measure_accuracy``: are the accuracy and agreement verdicts clear?

    A gate is clear once one of its conditions fails or all of them hold. It is also clear if
    float32 guesses or predicts one class, which more images would not change. Without labels
    only agreement counts.
    """

    def is_clear(accuracy: Accuracy) -> bool:
        if is_guessing(accuracy) or predicts_one_class(accuracy):
            return True
        gates = [agreement_gate.conditions(accuracy, thresholds, STOPPING_CONFIDENCE)]
        if accuracy.labelled:
            gates.append(accuracy_gate.conditions(accuracy, thresholds, STOPPING_CONFIDENCE))
        return all(worst(demands).verdict is not Verdict.INCONCLUSIVE for demands in gates)

    return is_clear
