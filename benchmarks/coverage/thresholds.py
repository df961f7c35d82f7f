"""From the record to what recipes promise: thresholds with a margin, and none for a collapse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.coverage.plan import EAGER
from benchmarks.coverage.record import JUDGED_AGAIN, estimate, judged
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.intervals import noise_factor
from ptqbench.recipes.measured import ModelMeasurements
from ptqbench.settings.thresholds import Thresholds

SPEED_SHARE, SIZE_SHARE = 0.85, 0.97
"""Parts of the speedup's lower limit, widened by noise as the gate does, and of the worst size
ratio that are promised."""
SHARE_MARGIN, SQNR_MARGIN_DB = 0.01, 1.0
"""What is subtracted from the lower limits of accuracy and agreement, and of the SQNR."""
LEAST_SQNR_DB, LEAST_AGREEMENT, LEAST_ACCURACY = 10.0, 0.65, 0.90
"""A case that is surely worse than one of these is a collapse: no threshold follows it. A random
network is right on a quarter of the images and unsure of most, so that agreement falls long
before its numerics are wrong; the SQNR tells these apart."""
LOWEST = {"accuracy": 0.70, "agreement": 0.60}
"""Below this no threshold is set, however few images made an interval wide."""
PASSING = frozenset({Verdict.PASS})
NOT_FAILING = frozenset(Verdict) - {Verdict.FAIL}

Json = Mapping[str, Any]
"""A recorded case; or a result: what ``models`` of a run has of a model, and its ``cases``."""


def collapsed(case: Json) -> bool:
    """Whether int8 is so far from float32 that something is wrong, whatever was hoped for."""
    return (
        estimate(case, "sqnr_db").value < LEAST_SQNR_DB
        or estimate(case, "agreement").high < LEAST_AGREEMENT
        or ("accuracy" in case["intervals"] and estimate(case, "accuracy").high < LEAST_ACCURACY)
    )


def sound(case: Json) -> bool:
    """Whether a case was measured, is no collapse, and fails no gate without a threshold."""
    if case["status"] != "measured" or collapsed(case):
        return False
    return all(v != Verdict.FAIL for g, v in case["gates"].items() if g not in JUDGED_AGAIN)


def probe_thresholds(cases: Iterable[Json]) -> dict[str, float]:
    """Return thresholds under probe weights, none where all sound cases pass by the general ones.

    They are the lowest limits of the intervals less a margin, and with them a least SQNR, without
    which the others would say little.
    """
    general = Thresholds()
    assert general.accuracy is not None
    cases = list(cases)
    lows = {
        name: [estimate(case, name).low for case in cases if name in case["intervals"]]
        for name in ("accuracy", "agreement", "sqnr_db")
    }
    thresholds = {}
    for name, least in (("accuracy", general.accuracy), ("agreement", general.agreement)):
        if lows[name] and min(lows[name]) < least:
            thresholds[name] = max(down(min(lows[name]) - SHARE_MARGIN, 2), LOWEST[name])
    if thresholds:
        thresholds["sqnr_db"] = down(min(lows["sqnr_db"]) - SQNR_MARGIN_DB, 1)
    return thresholds


def measured_of(results: Mapping[str, Json]) -> ModelMeasurements:
    """Return what a recipe can promise; of its results by run, earlier ones count more."""
    cases = [case for result in results.values() for case in result["cases"].values()]
    good = [case for case in cases if sound(case)]
    most = max((case["evaluation_images"] for case in cases if "metrics" in case), default=0)
    telling = [case for case in good if case["evaluation_images"] == most]  # few images say little
    ratios = [case["metrics"]["size_ratio"] for case in cases if case["status"] == "measured"]
    by_probe = all(result["weights"] == "probe" for result in results.values())
    probe = probe_thresholds(telling) if by_probe else {}
    size_ratio = down(SIZE_SHARE * min(ratios), 2) if ratios else None
    first = next(iter(results.values()))
    required = Thresholds(size_ratio=size_ratio or 0.0).replaced(probe)
    backend = recommended([*results.values()], required)
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


def recommended(results: Sequence[Json], thresholds: Thresholds) -> str | None:
    """Return the fastest backend for this CPU that passes everything else, or the next best.

    That is one that is not timed yet and passes the rest, or the fastest that at least fails
    nothing: few images make wide intervals.
    """
    for accepted, timed in ((PASSING, True), (PASSING, False), (NOT_FAILING, True)):
        for result in results:
            speeds = {
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


def speedups(backend: str | None, results: Iterable[Json]) -> dict[str, float]:
    """Return promised speedups of a backend by instruction set; eager mode counts as well."""
    promised: dict[str, float] = {}
    for case in (case for result in results for case in result["cases"].values()):
        if on_target(case) and "speedup" in case["intervals"] and case["backend"] == backend:
            low = estimate(case, "speedup").low / noise_factor(estimate(case, "noise"))
            known = promised.get(case["instruction_set"], math.inf)
            promised[case["instruction_set"]] = min(down(SPEED_SHARE * low, 2), known)
    return promised


def down(value: float, digits: int) -> float:
    """Round down, so that rounding promises nothing more."""
    factor = 10**digits
    return math.floor(value * factor + 1e-9) / factor
