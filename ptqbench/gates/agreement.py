"""Gate: does int8 say what float32 says, right or wrong?

It needs no labels: where there are none, it is what decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ptqbench.gates.conditions import Condition, judged_by, worst
from ptqbench.gates.gate import Evidence, GateResult, Verdict, gate
from ptqbench.measurement.intervals import proportion

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy import Accuracy
    from ptqbench.recipes import Thresholds

NAME = "agreement"
UNLABELLED_SQNR_DB = 10.0
"""Asked for on images without labels where no threshold is set: a tenth of the signal's power.

Collapsed and saturating networks measured 0.1 to 10 dB, sound ones more than 20. Where
nobody knows what is right, predictions that happen to agree are not evidence enough.
"""
_ADVICE = {
    Verdict.PASS: "",
    Verdict.INCONCLUSIVE: " More images would decide it.",
    Verdict.FAIL: (
        " Both show damage that top-1 hides: look for saturation, per-tensor weights and poor "
        "calibration."
    ),
}


def conditions(
    accuracy: Accuracy, thresholds: Thresholds, confidence: float = 0.95
) -> tuple[Condition, ...]:
    """What must hold of predictions, and of the logits' SQNR where it has a threshold.

    On images without labels it always has one: `UNLABELLED_SQNR_DB` if none is set.

    Args:
        accuracy: With or without labels.
        thresholds: What is asked for.
        confidence: Level of the intervals.
    """
    agreement = proportion(accuracy.agreed, accuracy.n, confidence)
    threshold = thresholds.agreement
    detail = (
        f"float32 and int8 predict the same class for {agreement.value:.2%} of {accuracy.n:,} "
        f"images ({accuracy.n - accuracy.agreed:,} differ), {threshold:.2%} are asked for"
    )
    found = [Condition("agreement", agreement, threshold, detail)]
    decibels = thresholds.sqnr_db
    if decibels is None and not accuracy.labelled:
        decibels = UNLABELLED_SQNR_DB
    if decibels is not None:
        said = f", {decibels:.1f} dB are asked for"
        found.append(Condition("sqnr_db", accuracy.noise.sqnr(confidence), decibels, said))
    return tuple(found)


@gate(NAME, needs="accuracy")
def agreement_gate(evidence: Evidence, accuracy: Accuracy) -> GateResult:
    """Judge how often both predict the same, and SQNR where it has a threshold."""
    found = conditions(accuracy, evidence.thresholds)
    detail = f"{found[0].detail}; logit SQNR {_decibels(accuracy, found)}."
    if not accuracy.labelled:
        detail += " The images have no labels, so these two decide."
    return judged_by(NAME, found, detail + _ADVICE[worst(found).verdict])


def _decibels(accuracy: Accuracy, found: Sequence[Condition]) -> str:
    sqnr = accuracy.sqnr
    asked = "".join(condition.detail for condition in found[1:])
    if sqnr.value == -math.inf:
        return f"is lost, because int8 gives logits that are not numbers{asked}"
    if math.isinf(sqnr.value):
        return f"is infinite, because the logits are equal{asked}"
    between = "" if math.isinf(sqnr.low) else f" ({sqnr.low:.1f} to {sqnr.high:.1f})"
    return f"{sqnr.value:.1f} dB{between}{asked}"
