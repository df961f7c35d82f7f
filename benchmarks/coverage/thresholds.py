"""From the record to what recipes promise: thresholds with a margin, and none for a collapse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.coverage.plan import EAGER
from benchmarks.coverage.record import JUDGED_AGAIN, Json, estimate, judged
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.intervals import noise_factor
from ptqbench.recipes.measured import ModelMeasurements
from ptqbench.settings.thresholds import Thresholds

SPEED_SHARE, SIZE_SHARE = 0.85, 0.97
"""Parts of the speedup's lower limit, less noise, and of the worst size ratio to promise."""
SHARE_MARGIN, SQNR_MARGIN_DB = 0.01, 1.0
"""What is subtracted from the lower limits of accuracy and agreement, and of the SQNR."""
LEAST_SQNR_DB, LEAST_AGREEMENT, LEAST_ACCURACY = 10.0, 0.65, 0.90
"""A case that is surely worse than one of these is a collapse: no threshold follows it. A random
network is unsure of most images: agreement falls before its numerics are wrong, the SQNR after."""
LOWEST = {"accuracy": 0.70, "agreement": 0.60}
"""Below this no threshold is set, however few images made an interval wide."""


def collapsed(case: Json) -> bool:
    """Whether int8 is so far from float32 that something is wrong, whatever was hoped for."""
    return (
        estimate(case, "sqnr_db").value < LEAST_SQNR_DB
        or estimate(case, "agreement").high < LEAST_AGREEMENT
        or ("accuracy" in case["intervals"] and estimate(case, "accuracy").high < LEAST_ACCURACY)
    )


def sound(case: Json) -> bool:
    """Whether a measured case is no collapse and fails no gate without a threshold."""
    failed = {gate for gate, verdict in case["gates"].items() if verdict == Verdict.FAIL}
    return not collapsed(case) and failed <= {*JUDGED_AGAIN}


def probe_thresholds(cases: Sequence[Json]) -> dict[str, float]:
    """Return thresholds under probe weights, none where all sound cases pass by the general ones.

    With the lowest limits less a margin comes a least SQNR, without which they would say little.
    """
    thresholds = {}
    for name, lowest in LOWEST.items():
        lows = [estimate(case, name).low for case in cases if name in case["intervals"]]
        if lows and min(lows) < getattr(Thresholds(), name):
            thresholds[name] = max(down(min(lows) - SHARE_MARGIN, 2), lowest)
    if thresholds:
        low = min(estimate(case, "sqnr_db").low for case in cases)
        thresholds["sqnr_db"] = down(low - SQNR_MARGIN_DB, 1)
    return thresholds


def measured_of(results: Sequence[Json]) -> ModelMeasurements:
    """Return what a recipe can promise by a model's facts and cases in each run, earlier first."""
    first, cases = results[0], [case for each in results for case in each["cases"].values()]
    measured = [case for case in cases if case["status"] == "measured"]
    most = max((case["evaluation_images"] for case in measured), default=0)  # fewer say little
    telling = [case for case in measured if case["evaluation_images"] == most and sound(case)]
    by_probe = all(result["weights"] == "probe" for result in results)
    probe = probe_thresholds(telling) if by_probe else {}
    ratios = [case["metrics"]["size_ratio"] for case in measured]
    size_ratio = down(SIZE_SHARE * min(ratios), 2) if ratios else None
    backend = recommended(results, Thresholds(size_ratio=size_ratio or 0.0).replaced(probe))
    return ModelMeasurements(
        fused_groups=first.get("fused_groups"),
        int8_modules=first.get("int8_modules"),
        backend=backend,
        size_ratio=size_ratio,
        speedup=speedups(backend, cases),
        probe=probe,
        unsupported={
            name: case["reason"]
            for name, case in first["cases"].items()
            if case["status"] == "refused" and name != EAGER
        },
    )


def recommended(results: Sequence[Json], thresholds: Thresholds) -> str | None:
    """Return the fastest backend for this CPU that passes everything else, or the next best.

    That is one that is not timed yet and passes, or the fastest that at least fails nothing.
    """
    passing, not_failing = {Verdict.PASS}, {*Verdict} - {Verdict.FAIL}
    for accepted, timed in ((passing, True), (passing, False), (not_failing, True)):
        for result in results:
            speeds: dict[str, float] = {
                name: case["metrics"]["speedup"] if timed else 0.0
                for name, case in result["cases"].items()
                if name != EAGER
                and on_target(case)
                and ("speedup" in case["intervals"]) == timed
                and not collapsed(case)
                and {v for g, v in judged(case, thresholds).items() if g != "speedup"} <= accepted
            }
            if speeds:
                return max(speeds, key=speeds.__getitem__)
    return None


def on_target(case: Json) -> bool:
    """Whether a case was measured on a CPU that its kernels are for."""
    return case["status"] == "measured" and case["instruction_set"] in case["kernels_for"]


def speedups(backend: str | None, cases: Iterable[Json]) -> dict[str, float]:
    """Return promised speedups of a backend by instruction set; eager mode counts as well."""
    promised: dict[str, float] = {}
    for case in cases:
        if on_target(case) and "speedup" in case["intervals"] and case["backend"] == backend:
            low = estimate(case, "speedup").low / noise_factor(estimate(case, "noise"))
            known = promised.get(case["instruction_set"], math.inf)
            promised[case["instruction_set"]] = min(down(SPEED_SHARE * low, 2), known)
    return promised


def down(value: float, digits: int) -> float:
    """Round down, so that rounding promises nothing more."""
    return math.floor(value * 10.0**digits + 1e-9) / 10.0**digits
