"""Gate: does int8 predict what float32 predicts, right or wrong?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptqbench.gates.base import Evidence, GateResult, Verdict, decide, gate, judged

if TYPE_CHECKING:
    from ptqbench.measurement.accuracy import Accuracy

NAME = "agreement"
_ADVICE = {
    Verdict.PASS: "",
    Verdict.INCONCLUSIVE: " More images would decide it.",
    Verdict.FAIL: (
        " Agreement shows damage that top-1 hides: look for saturation, per-tensor weights "
        "and poor calibration."
    ),
}


@gate(NAME, needs="accuracy")
def agreement_gate(evidence: Evidence, accuracy: Accuracy) -> GateResult:
    """Judge the share of images for which float32 and int8 predict the same class."""
    threshold = evidence.thresholds.agreement
    agreement = accuracy.agreement
    verdict = decide(agreement, threshold)
    differing = round(agreement.n * (1 - agreement.value))
    detail = (
        f"float32 and int8 predict the same class for {agreement.value:.2%} of "
        f"{agreement.n:,} images ({differing:,} differ); logit SQNR {accuracy.sqnr_db:.1f} dB."
    )
    return judged(NAME, verdict, agreement, threshold, detail + _ADVICE[verdict])
