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


def _problem(found: Fidelity) -> str:
    if found.error:
        return (
            f"A fresh process cannot run the file under "
            f"{found.recorded_engine or found.measured_engine}: {found.error}. Look at the "
            "engine that it was saved for and at the torch version."
        )
    if found.recorded_engine and found.recorded_engine != found.measured_engine:
        return (
            f"It was measured under {found.measured_engine}, but the file records "
            f"{found.recorded_engine}, under which {_difference(found)}. Load it under the "
            "recorded engine."
        )
    if found.fresh_engine != (found.recorded_engine or found.measured_engine):
        return (
            f"The fresh process ran under {found.fresh_engine} instead of "
            f"{found.recorded_engine or found.measured_engine}."
        )
    if found.identical < found.images:
        return (
            f"A fresh process gives other logits: {_difference(found)}. What was measured is "
            "not what the file holds: look at state that is not saved, and at the engine that "
            "was set while loading."
        )
    return ""


def _difference(found: Fidelity) -> str:
    different = found.images - found.identical
    if not different:
        return "the logits happen to be the same"
    largest = "" if found.difference is None else f", by {found.difference:.3g} at most"
    return f"the logits of {different} of {found.images} images differ{largest}"
