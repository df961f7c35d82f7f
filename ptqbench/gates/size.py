"""Gate: is the int8 artifact small enough?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptqbench.gates.base import Evidence, GateResult, Verdict, gate

if TYPE_CHECKING:
    from ptqbench.measurement.size import Size

NAME = "size"


@gate(NAME, needs="size")
def size_gate(evidence: Evidence, size: Size) -> GateResult:
    """Judge how many times as large as int8 float32 is; bytes are exact, without interval."""
    threshold = evidence.thresholds.size_ratio
    verdict = Verdict.PASS if size.ratio >= threshold else Verdict.FAIL
    detail = (
        f"float32 takes {size.float32_bytes:,} bytes and int8 {size.int8_bytes:,}, "
        f"{size.ratio:.2f} times smaller."
    )
    if verdict is Verdict.FAIL:
        detail += (
            f" {threshold:.2f} times are asked for: look for layers that stayed in float32 "
            "and for weights that were saved twice."
        )
    return GateResult(NAME, verdict, size.ratio, threshold, None, None, detail)
