"""Gate: is the int8 artifact small enough, compared with float32 and for the device?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptqbench.gates.gate import Evidence, GateResult, gate
from ptqbench.gates.verdict import Verdict

if TYPE_CHECKING:
    from ptqbench.measurement.size import Size

NAME = "size"


@gate(
    NAME,
    summary="Is the int8 artifact small enough, compared with float32 and for the device?",
    order=50,
    measurement="size",
    thresholds=(
        "size_ratio",
        "max_bytes",
    ),
    units={"size": "ratio", "size_ratio": "ratio", "max_bytes": "bytes"},
)
def size_gate(evidence: Evidence, size: Size) -> GateResult:
    """Judge the ratio to float32, and the bytes if there is a budget; both are exact.

    The numbers of the result are those of the condition that fails, the ratio's if both do.
    """
    required, budget = evidence.thresholds.size_ratio, evidence.thresholds.max_bytes
    small = size.ratio >= required
    fits = budget is None or size.int8_bytes <= budget
    detail = (
        f"float32 takes {size.float32_bytes:,} bytes and int8 {size.int8_bytes:,}, "
        f"{size.ratio:.2f} times smaller; required: {required:.2f} times"
    )
    if budget is not None:
        detail += f", and {_against(size.int8_bytes, budget)}"
    detail += "."
    if not small:
        detail += " Look for layers that stayed in float32 and for weights that were saved twice."
    elif not fits:
        detail += " The ratio is as required: look for a smaller architecture, or fewer classes."
    if small and not fits:
        assert budget is not None
        observed, threshold, criterion = float(size.int8_bytes), float(budget), "max_bytes"
    else:
        observed, threshold, criterion = size.ratio, required, "size_ratio"
    verdict = Verdict.PASS if small and fits else Verdict.FAIL
    return GateResult(NAME, verdict, observed, threshold, None, None, detail, criterion)


def _against(size: int, budget: int) -> str:
    if size > budget:
        return f"the budget is {budget:,} bytes: int8 is {size - budget:,} bytes over it"
    return f"the budget is {budget:,} bytes: {budget - size:,} bytes are left"
