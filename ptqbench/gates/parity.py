"""Gate: does the file, executed, compute what simulating it promises?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ptqbench.gates.gate import Evidence, GateResult, decide, gate, judged
from ptqbench.gates.verdict import Verdict

if TYPE_CHECKING:
    from ptqbench.measurement.parity import Parity
    from ptqbench.settings.thresholds import Thresholds

NAME = "parity"
_ADVICE = {
    Verdict.PASS: "",
    Verdict.INCONCLUSIVE: " More images would decide it.",
    Verdict.FAIL: (
        " Whoever judges it by simulation is promised more than the device gives: look at the gate "
        "saturation, at operators whose kernels round in their own way, and at other backends."
    ),
}


def parity_verdict(parity: Parity, thresholds: Thresholds) -> Verdict:
    """Compare the loss of SQNR with its threshold."""
    return decide(parity.change, -thresholds.parity_db)


@gate(
    NAME,
    summary="Does the file, executed, compute what simulating it in float32 promises?",
    order=90,
    measurement="parity",
    thresholds=("parity_db",),
    units={"parity_db": "decibels"},
)
def parity_gate(evidence: Evidence, parity: Parity) -> GateResult:
    """Judge how much noise kernels add to that of the grids, by the SQNR of the logits."""
    verdict = parity_verdict(parity, evidence.thresholds)
    simulated, executed = parity.simulated.sqnr().value, parity.executed.sqnr().value
    detail = (
        f"Executed, the logits have an SQNR of {executed:.1f} dB to float32, simulated "
        f"{simulated:.1f} dB; both predict the same class for {parity.agreed} of {parity.images} "
        f"images.{_ADVICE[verdict]}"
    )
    result = judged(NAME, verdict, parity.change, -evidence.thresholds.parity_db, detail)
    return replace(result, criterion="parity_db")
