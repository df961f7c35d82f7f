"""From results to what recipes promise: thresholds with a margin, and none for a collapse."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.coverage.keys import EAGER
from benchmarks.coverage.records import JUDGED_AGAIN, accuracy_of, judge_again
from ptqbench.gates import accuracy as accuracy_gate
from ptqbench.gates import agreement as agreement_gate
from ptqbench.gates.soundness import is_guessing
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.accuracy_record import Accuracy
from ptqbench.measurement.intervals import Estimate, noise_factor
from ptqbench.recipes import Recipe
from ptqbench.recipes.measured import ModelMeasurements
from ptqbench.settings.thresholds import Thresholds

SPEED_SHARE = 0.85
"""Part of the lower limit of the speedup, noise taken off as the gate does, that is promised."""
SIZE_SHARE = 0.97
"""Part of the worst size ratio that is promised."""
SHARE_MARGIN = 0.01
"""What is taken off the lower limit of an accuracy kept or an agreement."""
SQNR_MARGIN_DB = 1.0
"""What is taken off the lower limit of an SQNR."""

LEAST_SQNR_DB = 10.0
LEAST_AGREEMENT = 0.65
LEAST_KEPT = 0.90
"""What a case that is surely worse than one of these measures is a collapse: no threshold
follows it. A random network is right on a quarter of the images and unsure of most, so that
agreement falls long before its numerics are wrong; the SQNR tells these apart."""
LOWEST = {"accuracy": 0.70, "agreement": 0.60}
"""Below this no threshold is set, however few images made an interval wide."""

Json = Mapping[str, Any]
Results = Mapping[str, Json]
"""Results of one model, by how the CPU was restricted."""

SPEEDUP = "speedup"
PASSING = frozenset({Verdict.PASS})
NOT_FAILING = frozenset(Verdict) - {Verdict.FAIL}


def collapsed(accuracy: Accuracy) -> bool:
    """Whether int8 is so far from float32 that something is wrong, whatever was hoped for."""
    most_kept = 1.0
    if accuracy.top1 is not None and not is_guessing(accuracy):
        most_kept = accuracy_gate.retained_share(accuracy.top1).high
    return (
        not accuracy.sqnr_db >= LEAST_SQNR_DB
        or accuracy.agreement.high < LEAST_AGREEMENT
        or most_kept < LEAST_KEPT
    )


def sound(case: Json) -> bool:
    """Whether a case was measured, is no collapse, and fails no gate that has no threshold."""
    return (
        case["status"] == "measured"
        # A case of the committed record has verdicts of the thresholds it was judged by, too.
        and all(v != Verdict.FAIL for g, v in case["gates"].items() if g not in JUDGED_AGAIN)
        and not collapsed(accuracy_of(case))
    )


def probe_thresholds(cases: Iterable[Json]) -> dict[str, float]:
    """Thresholds under probe weights, where the general ones are missed without a collapse.

    Args:
        cases: Measured, none collapsed.

    Returns:
        Nothing where all cases pass by the general thresholds. Else the lowest limit of the
        intervals with its margin off, and with it a least SQNR, without which the others
        would say little.
    """
    general = Thresholds()
    lows: dict[str, list[float]] = {"accuracy": [], "agreement": [], "sqnr_db": []}
    for case in cases:
        accuracy = accuracy_of(case)
        lows["agreement"].append(agreement_gate.conditions(accuracy, general)[0].estimate.low)
        lows["sqnr_db"].append(accuracy.sqnr.low)
        if not is_guessing(accuracy):
            lows["accuracy"].append(accuracy_gate.conditions(accuracy, general)[0].estimate.low)
    found = {}
    for name, least in (("accuracy", general.accuracy), ("agreement", general.agreement)):
        if lows[name] and min(lows[name]) < least:
            found[name] = max(down(min(lows[name]) - SHARE_MARGIN, 2), LOWEST[name])
    if found:
        found["sqnr_db"] = down(min(lows["sqnr_db"]) - SQNR_MARGIN_DB, 1)
    return found


def measured_of(recipe: Recipe, results: Results) -> ModelMeasurements:
    """What a recipe can promise after these results.

    Args:
        recipe: Its thresholds are not looked at.
        results: Earlier ones count more for the backend (:func:`recommended`).
    """
    cases = [case for result in results.values() for case in result["cases"].values()]
    good = [case for case in most_telling(results.values()) if sound(case)]
    sizes = [case["size"][0] / case["size"][1] for case in cases if case["status"] == "measured"]
    by_probe = all(result["weights"] == "probe" for result in results.values())
    probe = probe_thresholds(good) if by_probe else {}
    size_ratio = down(SIZE_SHARE * min(sizes), 2) if sizes else None
    first = next(iter(results.values()))
    asked = Thresholds(size_ratio=size_ratio or 0.0).replaced(probe)
    backend = recommended([*results.values()], asked)
    return ModelMeasurements(
        fused_groups=first.get("fused_groups"),
        int8_modules=first.get("int8_modules"),
        backend=backend,
        size_ratio=size_ratio,
        speedup=speedups(backend, results.values()),
        probe=probe,
        unsupported={
            name: case["reason"]
            for name, case in first["cases"].items()
            if case["status"] == "refused" and name != EAGER
        },
    )


def most_telling(results: Iterable[Json]) -> list[Json]:
    """The cases of the results with the most evaluation images: wide intervals say little."""
    there = [result for result in results if result["cases"]]
    most = max((result.get("evaluation_images", 0) for result in there), default=0)
    return [
        case
        for result in there
        if result.get("evaluation_images", 0) == most
        for case in result["cases"].values()
    ]


def recommended(results: Sequence[Json], thresholds: Thresholds) -> str | None:
    """The fastest backend that passes everything else; where there is none, the next best.

    That is one that nobody has timed yet and that passes the rest, or the fastest that at least
    fails nothing: few images make wide intervals. Backends whose kernels are for another CPU are
    left out.

    Args:
        results: Of one model; earlier ones count more.
        thresholds: Those of speedups do not count.
    """
    for accepted, timed in ((PASSING, True), (PASSING, False), (NOT_FAILING, True)):
        for result in results:
            speeds = {
                name: case["speed"]["speedup"][0] if timed else 0.0
                for name, case in result["cases"].items()
                if name != EAGER
                and on_target(case)
                and ("speed" in case) == timed
                and keeps(case, thresholds, result["input_shape"], accepted)
            }
            if speeds:
                return max(speeds, key=speeds.__getitem__)
    return None


def on_target(case: Json) -> bool:
    """Whether a case was measured on a CPU that its kernels are for."""
    return case["status"] == "measured" and case["instruction_set"] in case["kernels_for"]


def promised(case: Json) -> bool:
    """Whether a speed was measured that says something about the target."""
    return on_target(case) and "speed" in case


def keeps(
    case: Json, thresholds: Thresholds, input_shape: list[int], accepted: Collection[Verdict]
) -> bool:
    """Whether every gate but the speedup comes out as accepted, and it is no collapse."""
    gates = judge_again(case, thresholds, input_shape)
    others = all(gate.verdict in accepted for gate in gates if gate.name != SPEEDUP)
    return others and not collapsed(accuracy_of(case))


def speedups(backend: str | None, results: Iterable[Json]) -> dict[str, float]:
    """Promised speedups of a backend, by instruction set; eager mode counts where it ran."""
    found: dict[str, float] = {}
    for result in results:
        for case in result["cases"].values():
            if promised(case) and case["backend"] == backend:
                value = down(SPEED_SHARE * surely(case), 2)
                known = found.get(case["instruction_set"], math.inf)
                found[case["instruction_set"]] = min(value, known)
    return found


def surely(case: Json) -> float:
    """The speedup that was reached at least: what noise could explain is taken off as well."""
    noise = Estimate(*case["speed"]["noise"], case["speed"]["pairs"])
    return float(case["speed"]["speedup"][1] / noise_factor(noise))


def down(value: float, digits: int) -> float:
    """Rounded down, so that rounding promises nothing more."""
    factor = 10**digits
    return math.floor(value * factor + 1e-9) / factor
