"""Gate: does int8 predict what float32 predicts, right or wrong?

It needs no labels; without labels, it decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ptqbench.gates.conditions import Condition, judged_by, worst
from ptqbench.gates.gate import Evidence, GateResult, gate, unverified
from ptqbench.gates.soundness import alike_reason, constant_reason
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.intervals import proportion

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy_record import Accuracy
    from ptqbench.settings.thresholds import Thresholds

NAME = "agreement"
UNLABELLED_SQNR_DB = 10.0
"""Default threshold on images without labels: noise of a tenth of the signal's power.

Collapsed and saturating networks measured 0.1 to 10 dB, sound ones more than 20. Without
labels, predictions that happen to agree are not enough evidence.
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
    """Compare predictions with their threshold, and the logits' SQNR with its own if it has one.

    On images without labels it always has one: `UNLABELLED_SQNR_DB` if none is set.

    Args:
        accuracy: With or without labels.
        thresholds: What is required.
        confidence: Level of the intervals.
    """
    agreement = proportion(accuracy.agreed, accuracy.n, confidence)
    threshold = thresholds.agreement
    detail = (
        f"float32 and int8 predict the same class for {agreement.value:.2%} of {accuracy.n:,} "
        f"images ({accuracy.n - accuracy.agreed:,} differ), required: {threshold:.2%}"
    )
    demands = [Condition(NAME, agreement, threshold, detail)]
    decibels = thresholds.sqnr_db
    if decibels is None and not accuracy.labelled:
        decibels = UNLABELLED_SQNR_DB
    if decibels is not None:
        required = f", required: {decibels:.1f} dB"
        demands.append(Condition("sqnr_db", accuracy.noise.sqnr(confidence), decibels, required))
    return tuple(demands)


@gate(
    NAME,
    summary="Does int8 predict what float32 predicts, right or wrong?",
    order=40,
    measurement="accuracy",
    thresholds=(
        "agreement",
        "sqnr_db",
    ),
    units={"agreement": "share", "sqnr_db": "decibels"},
)
def agreement_gate(evidence: Evidence, accuracy: Accuracy) -> GateResult:
    """Judge how often both predict the same class, and SQNR if it has a threshold."""
    demands = conditions(accuracy, evidence.thresholds)
    if reason := alike_reason(accuracy) or constant_reason(accuracy):
        first = demands[0]
        result = unverified(NAME, reason, first.estimate, first.threshold)
        return replace(result, criterion=first.criterion)
    detail = f"{demands[0].detail}; logit SQNR {_decibels(accuracy, demands)}."
    if not accuracy.labelled:
        detail += " The images have no labels, so these two decide."
    return judged_by(NAME, demands, detail + _ADVICE[worst(demands).verdict])


def _decibels(accuracy: Accuracy, demands: Sequence[Condition]) -> str:
    sqnr = accuracy.sqnr
    required = "".join(condition.detail for condition in demands[1:])
    if sqnr.value == -math.inf:
        return f"is minus infinity, because int8 gives logits that are not numbers{required}"
    if math.isinf(sqnr.value):
        return f"is infinite, because the logits are equal{required}"
    between = "" if math.isinf(sqnr.low) else f" ({sqnr.low:.1f} to {sqnr.high:.1f})"
    return f"{sqnr.value:.1f} dB{between}{required}"
