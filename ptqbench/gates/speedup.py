"""Gate: is int8 fast enough on this CPU?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ptqbench.core.significant import significant
from ptqbench.gates.gate import Evidence, GateResult, decide, gate, judged, unverified
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.intervals import noise_factor
from ptqbench.settings.thresholds import INSTRUCTION_SETS, PARITY

if TYPE_CHECKING:
    from ptqbench.measurement.intervals import Estimate
    from ptqbench.measurement.speed import Speed

NAME = "speedup"


@gate(
    NAME,
    summary="Is int8 fast enough on this CPU?",
    order=60,
    measurement="speed",
    thresholds=("speedup",),
    units={"speedup": "ratio"},
)
def speedup_gate(evidence: Evidence, speed: Speed) -> GateResult:
    """Judge the speedup against the threshold of this CPU's instruction set.

    The threshold is a promise about float32 in the runtime of int8. If another installed runtime
    executes float32 faster, int8 must be at least as fast as that too. Where float32 against itself
    is off by more than 5 %, the interval is widened by that factor; if it then reaches the
    threshold, noise could explain any verdict and the gate is unverified.
    """
    if evidence.kernels_for and evidence.instruction_set not in evidence.kernels_for:
        return unverified(
            NAME,
            f"The backend's kernels are written for {', '.join(evidence.kernels_for)}: their speed "
            f"on {evidence.instruction_set} says nothing about the target. {_times(speed)}",
            speed.speedup,
        )
    threshold = evidence.thresholds.speedup.get(evidence.instruction_set)
    if speed.same_runtime is None:
        return _compared(evidence, speed, speed.speedup, threshold)
    rival = _compared(evidence, speed, speed.speedup, PARITY)
    if rival.verdict is not Verdict.PASS:
        return rival
    within = _compared(evidence, speed, speed.same_runtime, threshold)
    return within if within.verdict is not Verdict.PASS else rival


def _compared(
    evidence: Evidence, speed: Speed, ratio: Estimate, threshold: float | None
) -> GateResult:
    """Judge one of the two ratios."""
    if threshold is None:
        return unverified(NAME, f"{_no_threshold(evidence, ratio)} {_times(speed)}", ratio)
    factor = noise_factor(speed.noise)
    noisy = factor > 1
    if noisy and _straddles(ratio.low / factor, ratio.high * factor, threshold):
        return unverified(
            NAME,
            f"Machine too noisy: {_noise(speed)}, which could explain the speedup of "
            f"{ratio.value:.2f}. {_times(speed)} Rerun on an idle machine.",
            ratio,
            threshold,
        )
    verdict = decide(ratio, threshold)
    detail = _times(speed) + _advice(verdict, speed, ratio)
    if noisy:
        detail += f" The machine is noisy ({_noise(speed)}), but not enough to explain this."
    return judged(NAME, verdict, ratio, threshold, detail)


def _no_threshold(evidence: Evidence, ratio: Estimate) -> str:
    here = evidence.instruction_set
    known = ", ".join(evidence.thresholds.speedup) or "none"
    remedy = (
        f"to have that judged, set the threshold speedup.{here}"
        if here in INSTRUCTION_SETS
        else f"one can be set for {', '.join(INSTRUCTION_SETS)} only"
    )
    return (
        f"There is no speedup threshold for {here} (there is: {known}). int8 is "
        f"{ratio.value:.2f} times as fast as float32 here; {remedy}."
    )


def _straddles(low: float, high: float, threshold: float) -> bool:
    return low < threshold <= high


def _noise(speed: Speed) -> str:
    noise = speed.noise
    return f"float32 against itself gives {noise.low:.3f} to {noise.high:.3f}"


def _times(speed: Speed) -> str:
    shape = "x".join(map(str, speed.input_shape))
    threads = "1 thread" if speed.threads == 1 else f"{speed.threads} threads"
    place = f" in {speed.opponent}" if speed.opponent else ""
    same, same_ms = speed.same_runtime, speed.same_runtime_ms
    within = (
        f" Within its own runtime int8 is {same.value:.2f} times as fast "
        f"({same.low:.2f}–{same.high:.2f}): float32 {significant(same_ms)} ms."
        if same is not None and same_ms is not None
        else ""
    )
    return (
        f"float32{place} {significant(speed.float32_ms)} ms, int8 "
        f"{significant(speed.int8_ms)} ms for {shape} on {threads}, {speed.pairs} pairs.{within}"
    )


def _advice(verdict: Verdict, speed: Speed, ratio: Estimate) -> str:
    if verdict is Verdict.FAIL and ratio is speed.speedup and speed.opponent:
        return (
            f" float32 in {speed.opponent} is faster than this int8 file: ship that, or an int8 "
            f"file for a faster backend.{' ' if speed.cause else ''}{speed.cause}"
        )
    if verdict is Verdict.FAIL and speed.cause:
        return f" {speed.cause}"
    if verdict is Verdict.FAIL:
        return (
            " Compare the other backends: the engine matters more than the recipe. Look for "
            "layers that stayed in float32 and for operators that the engine runs slowly."
        )
    if verdict is Verdict.INCONCLUSIVE and math.isinf(ratio.high):
        return (
            " Neighbouring pairs resemble each other, so all of them say too little: the machine "
            "changed during the measurement. Rerun on an idle machine."
        )
    if verdict is Verdict.INCONCLUSIVE:
        return " The interval still contains the threshold after the maximum number of pairs."
    return ""
