"""Gate: does the file, loaded by a fresh process, give bit for bit what was measured?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptqbench.gates.gate import Evidence, GateResult, gate
from ptqbench.gates.verdict import Verdict

if TYPE_CHECKING:
    from ptqbench.measurement.fidelity import Fidelity

NAME = "fidelity"


@gate(
    NAME,
    summary="Does the file, loaded by a fresh process, give bit for bit what was measured?",
    order=70,
    measurement="fidelity",
    units={"fidelity": "share"},
)
def fidelity_gate(evidence: Evidence, fidelity: Fidelity) -> GateResult:
    """Judge the share of images whose logits a fresh process reproduces bit for bit."""
    problem = _problem(fidelity)
    share = fidelity.identical / fidelity.images
    verdict = Verdict.FAIL if problem else Verdict.PASS
    detail = problem or (
        f"A fresh process under {fidelity.fresh_engine} gives identical logits for "
        f"{fidelity.images} images."
    )
    if not fidelity.recorded_engine:
        detail += " The file does not record the engine that it must be loaded under."
    return GateResult(NAME, verdict, share, 1.0, None, fidelity.images, detail)


def _problem(fidelity: Fidelity) -> str:
    if fidelity.error:
        return (
            f"A fresh process cannot run the file under "
            f"{fidelity.recorded_engine or fidelity.measured_engine}: {fidelity.error}. Look at "
            "the engine that it was saved for and at the version of the runtime."
        )
    if fidelity.recorded_engine and fidelity.recorded_engine != fidelity.measured_engine:
        return (
            f"It was measured under {fidelity.measured_engine}, but the file records "
            f"{fidelity.recorded_engine}, under which {_difference(fidelity)}. Load it under the "
            "recorded engine."
        )
    if fidelity.fresh_engine != (fidelity.recorded_engine or fidelity.measured_engine):
        return (
            f"The fresh process ran under {fidelity.fresh_engine} instead of "
            f"{fidelity.recorded_engine or fidelity.measured_engine}."
        )
    if fidelity.identical < fidelity.images:
        return (
            f"A fresh process gives other logits: {_difference(fidelity)}. What was measured is "
            "not what the file holds: look at state that is not saved, and at the engine that "
            "was set while loading."
        )
    return ""


def _difference(fidelity: Fidelity) -> str:
    different = fidelity.images - fidelity.identical
    if not different:
        return "the logits happen to be the same"
    largest = "" if fidelity.difference is None else f", by {fidelity.difference:.3g} at most"
    return f"the logits of {different} of {fidelity.images} images differ{largest}"
