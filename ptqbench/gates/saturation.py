"""Gate: do the int8 kernels compute what integer arithmetic gives, or do they saturate?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptqbench.core.names import first_few
from ptqbench.gates.gate import Evidence, GateResult, gate
from ptqbench.gates.verdict import Verdict

if TYPE_CHECKING:
    from ptqbench.measurement.saturation import Saturation

NAME = "saturation"
_PAIRS = (
    "Keep any two weights whose products a kernel adds within ±128 together (in a recipe, "
    'spare_bit = "pairs"), or '
)
_BITS = "use 7-bit weights (−64…64) or 7-bit activations"
"""What to do where a backend says nothing more precise."""


@gate(
    NAME,
    summary="Do the int8 kernels compute what integer arithmetic gives, or do they saturate?",
    order=80,
    measurement="saturation",
    units={"saturation": "share"},
)
def saturation_gate(evidence: Evidence, saturation: Saturation) -> GateResult:
    """Judge the share of outputs of int8 layers that equal exact integer arithmetic."""
    total = saturation.outputs
    share = 1 - saturation.wrong / total if total else None
    verdict, detail = _decide(saturation)
    return GateResult(
        NAME, verdict, share, 1.0, None, total or None, f"{detail} {_probe(saturation)}"
    )


def _decide(saturation: Saturation) -> tuple[Verdict, str]:
    broken = sorted((x for x in saturation.layers if x.wrong), key=lambda x: -x.wrong / x.outputs)
    risky = [x.name for x in saturation.layers if x.by_weights]
    if broken:
        worst = [f"{x.name} ({x.wrong / x.outputs:.1%}, {x.worst:.0f} steps)" for x in broken]
        return Verdict.FAIL, (
            f"{len(broken)} of {len(saturation.layers)} int8 layers differ from exact integer "
            f"arithmetic under {saturation.engine}: {first_few(worst)}.{_cost(saturation)} "
            f"{_ways_out(saturation)}"
        )
    unchecked = [x.name for x in saturation.layers if not x.outputs]
    if not saturation.layers:
        return Verdict.UNVERIFIED, "There is no int8 layer in the artifact."
    exact_engine = bool(saturation.probe) and all(share == 1 for share in saturation.probe.values())
    unproven = [x.name for x in saturation.layers if not x.outputs and x.by_weights]
    if unproven and not exact_engine:
        reason = f" ({saturation.error})" if saturation.error else ""
        return Verdict.UNVERIFIED, (
            f"{len(unproven)} int8 layers could not be run apart{reason} and have weights that "
            f"can saturate: {first_few(unproven)}. {_ways_out(saturation)}"
        )
    text = f"{len(saturation.layers) - len(unchecked)} int8 layers equal exact integer arithmetic"
    text += f" on {saturation.images} images."
    if unchecked:
        text += f" {len(unchecked)} were judged by their weights or the engine's probe alone."
    return Verdict.PASS, text + _elsewhere(saturation, risky)


def _ways_out(saturation: Saturation) -> str:
    return f"{_PAIRS}{saturation.advice or _BITS}."


def _cost(saturation: Saturation) -> str:
    """What saturation costs, if the file also ran without it."""
    execution = saturation.execution
    if execution is None:
        return ""
    way = f" ({execution.way})" if execution.way else ""
    return (
        f" Executed exactly{way}, the file has an SQNR of {execution.exact_sqnr_db:.1f} dB on "
        f"{execution.images} images, as it runs here {execution.sqnr_db:.1f} dB, and it predicts "
        f"another class for {execution.changed} of them."
    )


def _elsewhere(saturation: Saturation, risky: list[str]) -> str:
    """Say which layers would saturate on a CPU without VNNI."""
    if not saturation.saturates_elsewhere:
        return f" {saturation.assurance}." if saturation.assurance else ""
    if not risky:
        return " No layer can saturate on a CPU without VNNI either."
    likely = [x.name for x in saturation.layers if x.by_images]
    if likely:
        return (
            f" On a CPU without VNNI {len(likely)} layers would saturate with inputs as large as "
            f"these images give: {first_few(likely)}. {_ways_out(saturation)}"
        )
    return (
        f" On a CPU without VNNI {len(risky)} layers could saturate, with larger inputs than "
        f"these images give: {first_few(risky)}."
    )


def _probe(saturation: Saturation) -> str:
    if not saturation.probe:
        return (
            f"{saturation.engine} cannot execute a single layer, so full-range ones were not tried."
        )
    shares = ", ".join(f"{kind} {share:.2f}" for kind, share in saturation.probe.items())
    return f"Full-range layers under {saturation.engine} on this CPU come out at: {shares}."
