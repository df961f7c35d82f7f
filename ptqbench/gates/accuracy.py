"""Gate: does int8 keep enough of float32's top-1 accuracy?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptqbench.gates.base import Evidence, GateResult, Verdict, decide, gate, judged, unverified
from ptqbench.measurement.statistics import Estimate, paired_difference, proportion

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy import Accuracy

NAME = "accuracy"
_POOR_SQNR_DB = 20.0
"""Engines that saturate measured 9 to 17 dB on small networks, sound ones 20 to 35 dB."""


def share_kept(accuracy: Accuracy, confidence: float = 0.95) -> Estimate:
    """int8's top-1 as a share of float32's, with the interval of the paired difference.

    Dividing by float32's top-1 as observed makes "the share is at least t" the same
    statement as "the difference is at least -(1 - t) times float32's top-1", which is
    the non-inferiority test.

    Raises:
        ZeroDivisionError: float32 gets no image right.
    """
    difference = paired_difference(
        accuracy.both, accuracy.only_float32, accuracy.only_int8, accuracy.neither, confidence
    )
    return Estimate(
        1 + difference.value / accuracy.float32_top1,
        1 + difference.low / accuracy.float32_top1,
        1 + difference.high / accuracy.float32_top1,
        accuracy.n,
    )


def is_guessing(accuracy: Accuracy) -> bool:
    """Whether float32 does no better than chance, so that nothing can be kept of it."""
    right = accuracy.both + accuracy.only_float32
    chance = 0.0 if accuracy.classes is None else 1 / accuracy.classes
    # With one class everything is right by chance, and that is all there is to know.
    return right == 0 or (accuracy.classes != 1 and proportion(right, accuracy.n).low <= chance)


@gate(NAME, needs="accuracy")
def accuracy_gate(evidence: Evidence, accuracy: Accuracy) -> GateResult:
    """Judge the share of float32's top-1 that int8 keeps, as a non-inferiority test."""
    threshold = evidence.thresholds.accuracy
    if is_guessing(accuracy):
        return unverified(
            NAME,
            f"float32 itself gets {accuracy.float32_top1:.1%} of {accuracy.n:,} images right, "
            "which is no better than guessing. Check that the classes of the weights and of "
            "the data are the same and in the same order, and the preprocessing.",
            threshold=threshold,
        )
    kept = share_kept(accuracy)
    verdict = decide(kept, threshold)
    detail = (
        f"int8 keeps {kept.value:.2%} of float32's top-1 ({accuracy.int8_top1:.2%} of "
        f"{accuracy.float32_top1:.2%}); {accuracy.only_float32:,} images right only in "
        f"float32, {accuracy.only_int8:,} only in int8, of {accuracy.n:,}."
    )
    return judged(NAME, verdict, kept, threshold, detail + _advice(verdict, accuracy))


def _advice(verdict: Verdict, accuracy: Accuracy) -> str:
    if verdict is Verdict.PASS:
        return ""
    if verdict is Verdict.INCONCLUSIVE:
        return " More images would decide it."
    if accuracy.sqnr_db < _POOR_SQNR_DB:
        return (
            f" The logits carry {accuracy.sqnr_db:.1f} dB only: look for saturation (range of "
            "activations and weights on this CPU), per-tensor weights and poor calibration."
        )
    return (
        f" The logits carry {accuracy.sqnr_db:.1f} dB: look at the calibration images and at "
        "layers to keep in float32."
    )
