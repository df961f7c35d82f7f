"""Measurements as JSON, and back: what gates judge can be judged again from the record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any

from ptqbench.evaluation.fields import macs_facts
from ptqbench.gates import GATES, Evidence, GateResult, Verdict, evaluate
from ptqbench.measurement.accuracy_record import Accuracy, ClassSpread, Pairs
from ptqbench.measurement.intervals import Estimate
from ptqbench.measurement.macs import Macs
from ptqbench.measurement.size import Size
from ptqbench.measurement.speed import Speed
from ptqbench.measurement.sqnr import LogitNoise
from ptqbench.settings.thresholds import Thresholds

JUDGED_AGAIN = ("accuracy", "agreement", "size", "speedup")
"""Gates that thresholds decide; the others say the same whatever the thresholds are."""

Json = Mapping[str, Any]


def encode(evidence: Evidence, macs: Macs, calibration_images: int) -> dict[str, Any]:
    """What is stored of a case before it is timed."""
    accuracy, size, fusion = evidence.accuracy, evidence.size, evidence.fusion
    assert accuracy is not None and size is not None
    assert accuracy.top1 is not None and accuracy.top5 is not None
    share = macs_facts(macs, evidence.conversion)["int8_share_of_macs"]
    kept = [name for name in GATES.names() if name not in JUDGED_AGAIN]
    return {
        "accuracy": {
            "agreed": accuracy.agreed,
            "top1": list(astuple(accuracy.top1)),
            "top5": list(astuple(accuracy.top5)),
            "noise": [_number(value) for value in astuple(accuracy.noise)],
            "classes": accuracy.classes,
            "labels": _spread(accuracy.labels),
            "predictions": _spread(accuracy.predictions),
        },
        "size": [size.float32_bytes, size.int8_bytes],
        "instruction_set": evidence.instruction_set,
        "kernels_for": list(evidence.kernels_for),
        "fused": None if fusion is None else [fusion.fused, fusion.groups],
        "int8_share_of_macs": _digits(share),
        "calibration_images": calibration_images,
        **verdicts(evaluate(evidence, kept)),
    }


def verdicts(gates: Iterable[GateResult]) -> dict[str, Any]:
    """Verdicts by gate, and what those say that did not pass."""
    gates = list(gates)
    return {
        "gates": {gate.name: gate.verdict.value for gate in gates},
        "details": {gate.name: gate.detail for gate in gates if gate.verdict is not Verdict.PASS},
    }


def encode_speed(speed: Speed) -> dict[str, Any]:
    """What is stored of the speed."""
    return {
        "speedup": _estimate(speed.speedup),
        "noise": _estimate(speed.noise),
        "float32_ms": _digits(speed.float32_ms),
        "int8_ms": _digits(speed.int8_ms),
        "pairs": speed.pairs,
        "threads": speed.threads,
    }


def judge_again(case: Json, thresholds: Thresholds, input_shape: list[int]) -> list[GateResult]:
    """The verdicts of all gates on a stored case.

    Args:
        case: What :func:`encode` stored.
        thresholds: What is asked for now.
        input_shape: Of the latency, ``N×C×H×W``.
    """
    evidence = Evidence(
        thresholds,
        case["instruction_set"],
        {
            "accuracy": accuracy_of(case),
            "size": Size(*case["size"]),
            "speed": speed_of(case, input_shape),
        },
        kernels_for=tuple(case["kernels_for"]),
        missing={"speed": _untimed(case)},
    )
    kept = [
        GateResult(name, Verdict(verdict), None, None, None, None, case["details"].get(name, ""))
        for name, verdict in case["gates"].items()
        if name not in JUDGED_AGAIN
    ]
    return [*kept, *evaluate(evidence, JUDGED_AGAIN)]


def _untimed(case: Json) -> str:
    reason = case.get("speed_reason")
    return f"It could not be timed: {reason}." if reason else "It has not been timed yet."


def accuracy_of(case: Json) -> Accuracy:
    """The paired accuracy that was stored."""
    stored = case["accuracy"]
    top1 = Pairs(*stored["top1"])
    noise = LogitNoise(*(math.inf if value is None else value for value in stored["noise"]))
    return Accuracy(
        n=top1.n,
        agreed=stored["agreed"],
        noise=noise,
        top1=top1,
        top5=Pairs(*stored["top5"]),
        classes=stored["classes"],
        # Results measured before these were counted are read too.
        labels=_spread_of(stored.get("labels")),
        predictions=_spread_of(stored.get("predictions")),
    )


def speed_of(case: Json, input_shape: list[int]) -> Speed | None:
    """The speed that was stored; None if the artifact could not be timed."""
    stored = case.get("speed")
    if stored is None:
        return None
    pairs = stored["pairs"]
    return Speed(
        speedup=Estimate(*stored["speedup"], pairs),
        float32_ms=stored["float32_ms"],
        int8_ms=stored["int8_ms"],
        noise=Estimate(*stored["noise"], pairs),
        pairs=pairs,
        threads=stored["threads"],
        input_shape=tuple(input_shape),
    )


def _spread(spread: ClassSpread | None) -> list[int] | None:
    return None if spread is None else [spread.distinct, spread.commonest]


def _spread_of(stored: list[int] | None) -> ClassSpread | None:
    return None if stored is None else ClassSpread(*stored)


def _estimate(estimate: Estimate) -> list[float]:
    return [_digits(x) for x in (estimate.value, estimate.low, estimate.high)]


def _number(value: float) -> float | None:
    return float(f"{value:.8g}") if math.isfinite(value) else None


def _digits(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
