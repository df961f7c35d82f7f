"""Gate: is everything fused that should be, nothing that should not, and correctly?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptqbench.core.names import first_few
from ptqbench.gates.gate import Evidence, GateResult, gate
from ptqbench.gates.verdict import Verdict

if TYPE_CHECKING:
    from ptqbench.measurement.bn_folding import Folding
    from ptqbench.measurement.fusion import Fusion

NAME = "fusion"
TOLERANCE = 1e-3
"""Largest relative difference of logits: folding a BatchNorm in float32 gives 1e-7 to 1e-4,
fusing in training mode or in front of a residual addition more than 1e-2."""


@gate(
    NAME,
    summary="Is everything fused that should be, nothing that should not, and correctly?",
    order=10,
    measurement="fusion",
    units={"fusion": "count"},
)
def fusion_gate(evidence: Evidence, fusion: Fusion) -> GateResult:
    """Judge how many groups of the float model are one operator, and correctly."""
    problems = list(fusion.problems)
    if fusion.error is not None and not fusion.error <= TOLERANCE:
        problems.append(
            f"the fused float model differs from the unfused one by {fusion.error:.1e} of the "
            f"largest logit on {fusion.images} images ({TOLERANCE:.0e} allowed): look at groups "
            "fused in training mode and at what is fused in front of an addition"
        )
    verdict = Verdict.PASS
    detail = f"{fusion.fused} of {fusion.groups} groups are fused"
    if problems or fusion.fused < fusion.groups:
        verdict = Verdict.FAIL
        detail += f"; {first_few(problems, separator='; ')}." if problems else _MISSING
    else:
        # Weights can differ for good reasons too, so that they prove no wrong fusion.
        if fusion.folding is not None and fusion.folding.off:
            verdict = Verdict.UNVERIFIED
        detail += f", nothing fusable is left{_numbers(fusion)}."
    return GateResult(NAME, verdict, fusion.fused, fusion.groups, None, fusion.groups, detail)


_MISSING = "; the others are not in the artifact: look at the conversion gate for their names."


def _numbers(fusion: Fusion) -> str:
    if fusion.folding is not None:
        return _weights(fusion.folding)
    if fusion.error is None:
        return " (the file has no record of its build, so only its graph was looked at)"
    text = (
        f"; the fused float model differs from the unfused one by {fusion.error:.1e} of the "
        f"largest logit on {fusion.images} images"
    )
    if fusion.untraceable:
        text += f" (the float graph could not be searched: {fusion.untraceable})"
    return text


def _weights(folding: Folding) -> str:
    if not folding.off:
        return (
            f"; in {folding.layers} layers the int8 weights are the float weights with their "
            "BatchNorms folded in, to half a step (the file has no record of its build)"
        )
    return (
        f"; but the numbers cannot be verified: in {len(folding.off)} of {folding.layers} layers "
        "the int8 weights are not the float weights with their BatchNorms folded in: "
        f"{first_few(folding.off)}. Either they come from other float weights, or were equalised, "
        "corrected or trained on, or fusing was wrong (in training mode): accuracy decides"
    )
