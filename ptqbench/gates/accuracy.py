"""Gate: does int8 keep enough of float32's accuracy, by the policy in force?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ptqbench.gates.conditions import Condition, judged_by, worst
from ptqbench.gates.gate import Evidence, GateResult, gate, unverified
from ptqbench.gates.soundness import (
    alike_reason,
    constant_reason,
    guessing_reason,
    missing_classes_reason,
)
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.intervals import Estimate, proportion

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy_record import Accuracy, Pairs
    from ptqbench.settings.thresholds import Thresholds

NAME = "accuracy"
_POOR_SQNR_DB = 20.0
"""Engines that saturate measured 9 to 17 dB on small networks, sound ones 20 to 35 dB."""
_TOP = 5


def retained_share(pairs: Pairs, confidence: float = 0.95) -> Estimate:
    """Estimate int8's top-1 as a share of float32's, with the paired interval.

    Dividing by float32's share as observed makes "int8 keeps t of it" the same statement as
    "the difference is at least -(1 - t) times float32's share", which is the
    non-inferiority test.

    Raises:
        ZeroDivisionError: float32 gets no image right.
    """
    return _mapped(pairs.difference(confidence), 1 / pairs.float32, offset=1)


def conditions(
    accuracy: Accuracy, thresholds: Thresholds, confidence: float = 0.95
) -> tuple[Condition, ...]:
    """Compare top-1 with the policy in force, and top-5 with its threshold if it has one.

    Args:
        accuracy: Measured on images with labels, with a float32 that does not guess.
        thresholds: Choose the policy.
        confidence: Level of the intervals.

    Raises:
        ValueError: The images have no labels.
    """
    if accuracy.top1 is None or accuracy.top5 is None:
        raise ValueError("Without labels nothing is known about top-1.")
    top1 = _top1(accuracy.top1, thresholds, confidence)
    if thresholds.top5 is None:
        return (top1,)
    # With five classes or fewer every label is among the five highest logits.
    informative = accuracy.classes is None or accuracy.classes > _TOP
    estimate = retained_share(accuracy.top5, confidence) if informative else None
    detail = (
        f", required: {thresholds.top5:.2%} of float32's"
        if informative
        else f", but with {accuracy.classes} classes top-5 is always 100%: remove this threshold"
    )
    return top1, Condition("top5", estimate, thresholds.top5, detail)


def _top1(pairs: Pairs, thresholds: Thresholds, confidence: float) -> Condition:
    policy, value = thresholds.top1_policy
    both = f"{pairs.int8:.2%} after float32's {pairs.float32:.2%}"
    if policy == "accuracy":
        share = retained_share(pairs, confidence)
        text = f"By share kept: int8 keeps {share.value:.2%} of float32's top-1"
        return Condition(policy, share, value, f"{text} ({both}; required: {value:.2%})")
    if policy == "accuracy_points":
        points = _mapped(pairs.difference(confidence), 100)
        moved = "loses" if points.value <= 0 else "gains"
        text = f"By absolute points: int8 {moved} {abs(points.value):.2f} points of top-1"
        return Condition(policy, points, -value, f"{text} ({both}; allowed loss: {value:.2f})")
    reached = proportion(pairs.both + pairs.only_int8, pairs.n, confidence)
    text = f"By fixed reference: int8's top-1 is {reached.value:.2%}"
    return Condition(
        policy, reached, value, f"{text} (required: {value:.2%}; float32: {pairs.float32:.2%})"
    )


def _mapped(estimate: Estimate, factor: float, offset: float = 0) -> Estimate:
    value, low, high = (offset + factor * x for x in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high, estimate.n)


@gate(
    NAME,
    summary="Does int8 keep enough of float32's accuracy, by the policy in force?",
    order=30,
    measurement="accuracy",
    thresholds=(
        "accuracy",
        "accuracy_points",
        "reference_top1",
        "top5",
    ),
    units={
        "accuracy": "share",
        "accuracy_points": "points",
        "reference_top1": "share",
        "top5": "share",
    },
)
def accuracy_gate(evidence: Evidence, accuracy: Accuracy) -> GateResult:
    """Judge int8's top-1 by the policy in force, and top-5 if it has a threshold."""
    reason = _why_not(accuracy)
    if reason:
        policy, value = evidence.thresholds.top1_policy
        threshold = -value if policy == "accuracy_points" else value
        return replace(unverified(NAME, reason, threshold=threshold), criterion=policy)
    demands = conditions(accuracy, evidence.thresholds)
    return judged_by(NAME, demands, _counts(accuracy, demands) + _advice(demands, accuracy))


def _why_not(accuracy: Accuracy) -> str:
    """Return why accuracy cannot be verified; empty if it can."""
    if not accuracy.labelled:
        return (
            f"The {accuracy.n:,} images have no labels, so accuracy cannot be measured: agreement "
            "and SQNR decide (gate agreement). For top-1, pass one folder of images per class."
        )
    reasons = (alike_reason, constant_reason, guessing_reason, missing_classes_reason)
    return next(filter(None, (reason(accuracy) for reason in reasons)), "")


def _counts(accuracy: Accuracy, demands: Sequence[Condition]) -> str:
    assert accuracy.top1 is not None and accuracy.top5 is not None
    top1, top5 = accuracy.top1, accuracy.top5
    required = "".join(condition.detail for condition in demands[1:])
    return (
        f"{demands[0].detail}; {top1.only_float32:,} images right only in float32, "
        f"{top1.only_int8:,} only in int8, of {top1.n:,}. Top-5: {top5.int8:.2%} after "
        f"{top5.float32:.2%}{required}."
    )


def _advice(demands: Sequence[Condition], accuracy: Accuracy) -> str:
    verdict = worst(demands).verdict
    if verdict is Verdict.INCONCLUSIVE:
        return " More images would decide it."
    if verdict is not Verdict.FAIL:
        return ""
    if accuracy.sqnr_db < _POOR_SQNR_DB:
        return (
            f" The logits have an SQNR of only {accuracy.sqnr_db:.1f} dB: look for saturation "
            "(range of activations and weights on this CPU), per-tensor weights and poor "
            "calibration."
        )
    return (
        f" The logits have an SQNR of {accuracy.sqnr_db:.1f} dB: look at the calibration images "
        "and at layers to keep in float32."
    )
