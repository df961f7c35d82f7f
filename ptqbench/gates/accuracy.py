"""Gate: does int8 keep enough of float32's accuracy, by the policy that was chosen?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ptqbench.gates.conditions import Condition, judged_by, worst
from ptqbench.gates.gate import Evidence, GateResult, Verdict, gate, unverified
from ptqbench.measurement.intervals import Estimate, proportion

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy import Accuracy, Pairs
    from ptqbench.recipes import Thresholds

NAME = "accuracy"
_POOR_SQNR_DB = 20.0
"""Engines that saturate measured 9 to 17 dB on small networks, sound ones 20 to 35 dB."""
_TOP = 5


def share_kept(pairs: Pairs, confidence: float = 0.95) -> Estimate:
    """What int8 gets right as a share of what float32 does, with the paired interval.

    Dividing by float32's share as observed makes "int8 keeps t of it" the same statement as
    "the difference is at least -(1 - t) times float32's share", which is the
    non-inferiority test.

    Raises:
        ZeroDivisionError: float32 gets no image right.
    """
    return _mapped(pairs.difference(confidence), 1 / pairs.float32, offset=1)


def is_guessing(accuracy: Accuracy) -> bool:
    """Whether float32 does no better than chance, so that nothing can be kept of it."""
    if accuracy.top1 is None:
        return False
    right = accuracy.top1.both + accuracy.top1.only_float32
    chance = 0.0 if accuracy.classes is None else 1 / accuracy.classes
    # With one class everything is right by chance, and that is all there is to know.
    return right == 0 or (accuracy.classes != 1 and proportion(right, accuracy.n).low <= chance)


def conditions(
    accuracy: Accuracy, thresholds: Thresholds, confidence: float = 0.95
) -> tuple[Condition, ...]:
    """What must hold of top-1, by the policy in force, and of top-5 where it has a threshold.

    Args:
        accuracy: Measured on images with labels, with a float32 that does not guess.
        thresholds: Choose the policy.
        confidence: Level of the intervals.

    Raises:
        ValueError: The images have no labels.
    """
    if accuracy.top1 is None or accuracy.top5 is None:
        raise ValueError("Without labels nothing is known about top-1.")
    found = [_top1(accuracy.top1, thresholds, confidence)]
    if thresholds.top5 is not None:
        # With five classes or fewer every label is among the five highest logits.
        says = accuracy.classes is None or accuracy.classes > _TOP
        kept = share_kept(accuracy.top5, confidence) if says else None
        detail = (
            f", {thresholds.top5:.2%} of float32's must be kept"
            if says
            else f", but with {accuracy.classes} classes that is always so: the threshold top5 "
            "cannot be verified, take it away"
        )
        found.append(Condition("top5", kept, thresholds.top5, detail))
    return tuple(found)


def _top1(pairs: Pairs, thresholds: Thresholds, confidence: float) -> Condition:
    policy, value = thresholds.top1_policy
    both = f"{pairs.int8:.2%} after float32's {pairs.float32:.2%}"
    if policy == "accuracy":
        kept = share_kept(pairs, confidence)
        text = f"By share kept: int8 keeps {kept.value:.2%} of float32's top-1"
        return Condition(policy, kept, value, f"{text} ({both}), {value:.2%} must be kept")
    if policy == "accuracy_points":
        points = _mapped(pairs.difference(confidence), 100)
        moved = "loses" if points.value <= 0 else "gains"
        text = f"By absolute points: int8 {moved} {abs(points.value):.2f} points of top-1"
        return Condition(policy, points, -value, f"{text} ({both}), {value:.2f} may be lost")
    reached = proportion(pairs.both + pairs.only_int8, pairs.n, confidence)
    text = f"By fixed reference: int8's top-1 is {reached.value:.2%}, {value:.2%} must be reached"
    return Condition(policy, reached, value, f"{text} (float32: {pairs.float32:.2%})")


def _mapped(estimate: Estimate, factor: float, offset: float = 0) -> Estimate:
    value, low, high = (offset + factor * x for x in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high, estimate.n)


@gate(NAME, needs="accuracy")
def accuracy_gate(evidence: Evidence, accuracy: Accuracy) -> GateResult:
    """Judge int8's top-1 by the policy in force, and top-5 where it has a threshold."""
    reason = _why_not(accuracy)
    if reason:
        policy, value = evidence.thresholds.top1_policy
        threshold = -value if policy == "accuracy_points" else value
        return replace(unverified(NAME, reason, threshold=threshold), criterion=policy)
    found = conditions(accuracy, evidence.thresholds)
    return judged_by(NAME, found, _counts(accuracy, found) + _advice(found, accuracy))


def _why_not(accuracy: Accuracy) -> str:
    if not accuracy.labelled:
        return (
            f"The {accuracy.n:,} images have no labels, so what is right is unknown: agreement "
            "and SQNR decide (gate agreement). For top-1, pass one folder of images per class."
        )
    if is_guessing(accuracy):
        return (
            f"float32 itself gets {accuracy.float32_top1:.1%} of {accuracy.n:,} images right, "
            "which is no better than guessing. Check that the classes of the weights and of "
            "the data are the same and in the same order, and the preprocessing."
        )
    return ""


def _counts(accuracy: Accuracy, found: Sequence[Condition]) -> str:
    assert accuracy.top1 is not None and accuracy.top5 is not None
    top1, top5 = accuracy.top1, accuracy.top5
    asked = "".join(condition.detail for condition in found[1:])
    return (
        f"{found[0].detail}; {top1.only_float32:,} images right only in float32, "
        f"{top1.only_int8:,} only in int8, of {top1.n:,}. Top-5: {top5.int8:.2%} after "
        f"{top5.float32:.2%}{asked}."
    )


def _advice(found: Sequence[Condition], accuracy: Accuracy) -> str:
    verdict = worst(found).verdict
    if verdict is Verdict.INCONCLUSIVE:
        return " More images would decide it."
    if verdict is not Verdict.FAIL:
        return ""
    if accuracy.sqnr_db < _POOR_SQNR_DB:
        return (
            f" The logits carry {accuracy.sqnr_db:.1f} dB only: look for saturation (range of "
            "activations and weights on this CPU), per-tensor weights and poor calibration."
        )
    return (
        f" The logits carry {accuracy.sqnr_db:.1f} dB: look at the calibration images and at "
        "layers to keep in float32."
    )
