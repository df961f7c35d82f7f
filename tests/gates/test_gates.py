"""Gates on planted defects, on straddling intervals and on what could not be measured."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest

from ptqbench.errors import UnknownNameError
from ptqbench.gates import GATES, Evidence, GateResult, Verdict, evaluate
from ptqbench.gates.gate import decide, gate, gates_in_order
from ptqbench.gates.stopping import stopping_rule
from ptqbench.measurement.accuracy_record import Accuracy, Pairs
from ptqbench.measurement.intervals import (
    Estimate,
    noise_factor,
    paired_difference,
    proportion,
)
from ptqbench.measurement.size import Size
from ptqbench.measurement.speed import Speed
from ptqbench.measurement.sqnr import LogitNoise
from ptqbench.reporting.format import gate_number
from ptqbench.settings.thresholds import INSTRUCTION_SETS, Thresholds

REQUIRED = Thresholds(agreement=0.97, speedup={"avx2": 1.5})
QUIET = Estimate(1.0, 0.99, 1.01, 20)


def accuracy(
    both: int = 1750,
    only_float32: int = 10,
    only_int8: int = 10,
    neither: int = 230,
    agreed: int = 1970,
    sqnr_db: float = 30.0,
    classes: int | None = 16,
) -> Accuracy:
    top1 = Pairs(both, only_float32, only_int8, neither)
    return Accuracy(
        n=top1.n,
        agreed=agreed,
        noise=noise_of(sqnr_db, top1.n),
        top1=top1,
        top5=Pairs(top1.n - 20, 0, 0, 20),
        classes=classes,
    )


def noise_of(decibels: float, n: int) -> LogitNoise:
    """The sums of ``n`` images that are all alike, so that the interval has no length."""
    power = 10 ** (-decibels / 10)
    return LogitNoise(n, n, n * power, n, n * power**2, n * power)


def speed(low: float, high: float, noise: Estimate = QUIET, value: float | None = None) -> Speed:
    ratio = Estimate((low + high) / 2 if value is None else value, low, high, 20)
    return Speed(ratio, 20.0, 20.0 / ratio.value, noise, 20, 2, (1, 3, 224, 224))


def judge(name: str, **evidence: object) -> GateResult:
    options = {
        key: evidence.pop(key)
        for key in ("thresholds", "instruction_set", "missing", "kernels_for", "unavailable")
        if key in evidence
    }
    record = Evidence(
        **{"thresholds": REQUIRED, "instruction_set": "avx2", **options}, measurements=evidence
    )  # type: ignore[arg-type]
    return GATES.get(name)(record)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.99, 1.0, Verdict.PASS),
        (0.995, 1.0, Verdict.PASS),
        (0.98, 0.99, Verdict.INCONCLUSIVE),
        (0.98, 1.0, Verdict.INCONCLUSIVE),
        (0.9, 0.9899, Verdict.FAIL),
        (math.nan, math.nan, Verdict.INCONCLUSIVE),
    ],
)
def test_decide(low: float, high: float, verdict: Verdict) -> None:
    assert decide(Estimate((low + high) / 2, low, high, 10), 0.99) is verdict


MEASURED = ("accuracy", "agreement", "size", "speedup")
"""Gates on numbers; those that look inside the artifact have test files of their own."""


def test_gates_have_an_order_and_only_known_thresholds() -> None:
    gates = gates_in_order()
    inside = ("fidelity", "saturation", "parity")
    assert [gate.name for gate in gates] == ["fusion", "conversion", *MEASURED, *inside]
    known = [field.name for field in dataclasses.fields(Thresholds)]
    assert sorted(name for gate in gates for name in gate.thresholds) == sorted(known)
    for record in gates:
        assert record.summary.endswith("?")
        assert set(record.thresholds) <= set(record.units)


def test_a_sound_case_passes_all_gates() -> None:
    evidence = Evidence(
        REQUIRED,
        "avx2",
        {"accuracy": accuracy(), "size": Size(45_000_000, 11_500_000), "speed": speed(2.0, 2.2)},
    )
    results = evaluate(evidence, MEASURED)
    assert tuple(result.name for result in results) == MEASURED
    assert {result.verdict for result in results} == {Verdict.PASS}
    assert all(result.detail for result in results)


# --- accuracy


def test_accuracy_is_reported_as_the_retained_share() -> None:
    result = judge("accuracy", accuracy=accuracy(only_float32=14, only_int8=6))
    difference = paired_difference(1750, 14, 6, 230)
    assert result.observed == pytest.approx(1756 / 1764)
    assert result.threshold == 0.99
    assert result.n == 2000
    assert result.interval == pytest.approx(
        (1 + difference.low / 0.882, 1 + difference.high / 0.882)
    )


@pytest.mark.parametrize("only_float32", range(0, 120, 3))
def test_accuracy_verdict_is_the_non_inferiority_test(only_float32: int) -> None:
    measured = accuracy(both=1750 - only_float32, only_float32=10 + only_float32, sqnr_db=12.0)
    assert measured.top1 is not None
    difference = measured.top1.difference()
    margin = -(1 - 0.99) * measured.top1.float32
    low, high = difference.low, difference.high
    expected = Verdict.PASS if low >= margin else Verdict.INCONCLUSIVE
    assert judge("accuracy", accuracy=measured).verdict is (
        Verdict.FAIL if high < margin else expected
    )


@pytest.mark.parametrize(
    ("sqnr_db", "where"), [(10.2, "saturation"), (32.0, "layers to keep in float32")]
)
def test_lost_accuracy_fails_and_says_where_to_look(sqnr_db: float, where: str) -> None:
    measured = accuracy(both=1650, only_float32=110, sqnr_db=sqnr_db)
    result = judge("accuracy", accuracy=measured)
    assert result.verdict is Verdict.FAIL
    assert where in result.detail
    assert "110 images right only in float32" in result.detail


def test_accuracy_that_straddles_is_inconclusive() -> None:
    result = judge("accuracy", accuracy=accuracy(both=1730, only_float32=30, only_int8=12))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "More images" in result.detail


@pytest.mark.parametrize("right", [0, 120])
def test_accuracy_of_a_guessing_float32_is_unverified(right: int) -> None:
    measured = accuracy(both=right, only_float32=0, only_int8=0, neither=2000 - right)
    result = judge("accuracy", accuracy=measured)
    assert result.verdict is Verdict.UNVERIFIED
    assert "no better than guessing" in result.detail
    assert result.threshold == 0.99


def test_one_class_is_right_by_chance_and_still_judged() -> None:
    measured = accuracy(both=500, only_float32=0, only_int8=0, neither=0, agreed=500, classes=1)
    assert judge("accuracy", accuracy=measured).verdict is Verdict.PASS


# --- agreement


@pytest.mark.parametrize(
    ("agreed", "verdict"),
    [(1990, Verdict.PASS), (1942, Verdict.INCONCLUSIVE), (1704, Verdict.FAIL)],
)
def test_agreement(agreed: int, verdict: Verdict) -> None:
    # 85.2 % is what a saturating engine measured while top-1 fell by far less.
    result = judge("agreement", accuracy=accuracy(agreed=agreed))
    assert result.verdict is verdict
    assert (result.observed, result.threshold, result.n) == (agreed / 2000, 0.97, 2000)
    assert result.interval == (proportion(agreed, 2000).low, proportion(agreed, 2000).high)
    assert ("saturation" in result.detail) is (verdict is Verdict.FAIL)
    assert f"({2000 - agreed} differ)" in result.detail


# --- size


@pytest.mark.parametrize(
    ("int8_bytes", "verdict"),
    [(250, Verdict.PASS), (333, Verdict.PASS), (334, Verdict.FAIL), (1020, Verdict.FAIL)],
)
def test_size(int8_bytes: int, verdict: Verdict) -> None:
    # 1,020 of 1,000 bytes: a file that was never converted, as mobilenet_v3's once was.
    result = judge("size", size=Size(1000, int8_bytes))
    assert result.verdict is verdict
    assert result.observed == 1000 / int8_bytes
    assert (result.threshold, result.interval, result.n) == (3.0, None, None)


# --- speedup


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.6, 1.8, Verdict.PASS),
        (1.5, 1.8, Verdict.PASS),
        (1.4, 1.6, Verdict.INCONCLUSIVE),
        (0.2, 0.25, Verdict.FAIL),
    ],
)
def test_speedup(low: float, high: float, verdict: Verdict) -> None:
    result = judge("speedup", speed=speed(low, high))
    assert result.verdict is verdict
    assert (result.interval, result.threshold, result.n) == ((low, high), 1.5, 20)
    assert "1x3x224x224 on 2 threads" in result.detail
    assert ("other backends" in result.detail) is (verdict is Verdict.FAIL)


def test_what_a_backend_runs_slowly_is_named_where_int8_is_too_slow() -> None:
    cause = "16 depthwise convolutions have no fast kernel in x86 (…): use onednn."
    result = judge("speedup", speed=dataclasses.replace(speed(0.2, 0.25), cause=cause))
    assert result.detail.endswith(f"20 pairs. {cause}")
    assert (
        cause
        not in judge("speedup", speed=dataclasses.replace(speed(1.6, 1.8), cause=cause)).detail
    )


@pytest.mark.parametrize("here", INSTRUCTION_SETS)
def test_speedup_without_a_threshold_is_unverified_with_its_number(here: str) -> None:
    others = {name: 1.5 for name in INSTRUCTION_SETS if name != here}
    measured = speed(1.6, 1.8)
    required = Thresholds(speedup=others)
    result = judge("speedup", speed=measured, instruction_set=here, thresholds=required)
    assert result.verdict is Verdict.UNVERIFIED
    assert result.observed == pytest.approx(1.7)
    assert result.interval == (1.6, 1.8)
    assert result.threshold is None
    assert result.detail.startswith(
        f"There is no speedup threshold for {here} (there is: {', '.join(others)}). int8 is 1.70 "
        f"times as fast as float32 here; to have that judged, set the threshold speedup.{here}."
    )
    required = Thresholds(speedup={**others, here: 1.5})
    judged = judge("speedup", speed=measured, instruction_set=here, thresholds=required)
    assert judged.verdict is Verdict.PASS


def test_a_cpu_that_no_threshold_is_for_is_not_told_to_set_one() -> None:
    result = judge("speedup", speed=speed(1.6, 1.8), instruction_set="other")
    assert result.verdict is Verdict.UNVERIFIED
    sets = "avx2, avx2_128, avx2_vnni, avx512, avx512_vnni, amx, neon"
    assert f"one can be set for {sets} only" in result.detail
    nothing = judge("speedup", speed=speed(1.6, 1.8), thresholds=Thresholds())
    assert "for avx2 (there is: none)" in nothing.detail


def test_speed_of_kernels_for_another_cpu_is_unverified_with_its_number() -> None:
    result = judge("speedup", speed=speed(1.9, 2.1), kernels_for=("neon",))
    assert result.verdict is Verdict.UNVERIFIED
    assert "written for neon" in result.detail
    assert result.observed == pytest.approx(2.0)


@pytest.mark.parametrize(("low", "high"), [(1.6, 1.8), (1.35, 1.45), (1.4, 1.6)])
def test_noise_that_could_explain_it_leaves_it_unverified(low: float, high: float) -> None:
    noise = Estimate(1.02, 0.93, 1.12, 20)
    result = judge("speedup", speed=speed(low, high, noise))
    assert result.verdict is Verdict.UNVERIFIED
    assert "too noisy" in result.detail
    assert "0.930 to 1.120" in result.detail
    assert result.observed == pytest.approx((low + high) / 2)
    assert result.threshold == 1.5


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(2.4, 2.6, Verdict.PASS), (0.2, 0.25, Verdict.FAIL)]
)
def test_noise_that_cannot_explain_it_is_only_said(
    low: float, high: float, verdict: Verdict
) -> None:
    result = judge("speedup", speed=speed(low, high, Estimate(1.0, 0.9, 1.1, 20)))
    assert result.verdict is verdict
    assert "noisy" in result.detail


def test_little_noise_is_not_mentioned() -> None:
    result = judge("speedup", speed=speed(1.52, 1.6, Estimate(1.0, 0.96, 1.04, 20)))
    assert result.verdict is Verdict.PASS
    assert "noisy" not in result.detail


def test_too_few_independent_pairs_are_inconclusive() -> None:
    drifting = Estimate(2.0, 0.0, math.inf, 20)
    result = judge("speedup", speed=dataclasses.replace(speed(1.9, 2.1), speedup=drifting))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "Neighbouring pairs resemble each other" in result.detail
    noise = speed(1.9, 2.1, noise=Estimate(1.0, 0.0, math.inf, 20))
    assert judge("speedup", speed=noise).verdict is Verdict.UNVERIFIED


@pytest.mark.parametrize(
    ("low", "high", "factor"), [(0.9, 1.05, 1 / 0.9), (0.99, 1.2, 1.2), (0.97, 1.04, 1.0)]
)
def test_noise_factor(low: float, high: float, factor: float) -> None:
    assert noise_factor(Estimate(1.0, low, high, 20)) == pytest.approx(factor)


# --- what could not be measured


def test_an_unavailable_backend_leaves_every_gate_unverified() -> None:
    reason = "fbgemm is not in this build of torch."
    results = evaluate(Evidence(REQUIRED, "avx2", {"accuracy": accuracy()}, unavailable=reason))
    assert {result.verdict for result in results} == {Verdict.UNVERIFIED}
    assert {result.detail for result in results} == {reason}
    assert all(result.observed is None for result in results)


@pytest.mark.parametrize("name", ["accuracy", "agreement", "size", "speedup"])
def test_a_missing_measurement_is_unverified(name: str) -> None:
    result = judge(name)
    assert result.verdict is Verdict.UNVERIFIED
    assert "was not measured" in result.detail


def test_a_missing_measurement_says_why() -> None:
    result = judge("agreement", missing={"accuracy": "The images have no labels."})
    assert result.detail == "The images have no labels."


def test_evaluate_takes_names() -> None:
    results = evaluate(Evidence(REQUIRED, "avx2", {"size": Size(4, 1)}), ["size"])
    assert [result.name for result in results] == ["size"]
    with pytest.raises(UnknownNameError, match="Did you mean speedup"):
        evaluate(Evidence(REQUIRED, "avx2"), ["speed_up"])


def test_a_gate_is_a_record_that_reports_and_formats_read() -> None:
    options = {"summary": "Is it dry?", "order": 45, "measurement": "weather"}

    @gate("weather", **options, units={"weather": "share"})  # type: ignore[arg-type]
    def weather(evidence: Evidence, measurement: float) -> GateResult:
        return GateResult("weather", Verdict.PASS, measurement, None, None, None, "Dry.")

    try:
        names = [record.name for record in gates_in_order()]
        assert names.index("weather") == names.index("agreement") + 1
        evidence = Evidence(REQUIRED, "avx2", {"weather": 0.5})
        assert evaluate(evidence, ["weather"])[0].observed == 0.5
        assert weather(Evidence(REQUIRED, "avx2")).detail == "The weather was not measured."
        assert gate_number("weather", 0.5) == "50.00 %"
        with pytest.raises(ValueError, match="already registered"):
            gate("weather", **options, units={})(weather.judge)  # type: ignore[arg-type]
    finally:
        del GATES._entries["weather"]


def test_results_are_frozen_and_verdicts_are_words() -> None:
    result = judge("size", size=Size(4, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.verdict = Verdict.FAIL  # type: ignore[misc]
    assert f"{result.verdict}" == "pass"
    assert {verdict.value for verdict in Verdict} == {
        "pass", "fail", "inconclusive", "unverified",
    }  # fmt: skip


# --- when to stop adding images


@pytest.mark.parametrize(
    ("measured", "is_clear"),
    [
        (accuracy(agreed=1985), True),
        (accuracy(both=1650, only_float32=110, agreed=1700), True),
        (accuracy(both=1730, only_float32=30, only_int8=12), False),
        (accuracy(agreed=1942), False),
        (accuracy(both=100, only_float32=0, only_int8=0, neither=1900, agreed=1942), True),
    ],
    ids=["sound", "broken", "accuracy straddles", "agreement straddles", "guessing"],
)
def test_stopping_rule(measured: Accuracy, is_clear: bool) -> None:
    assert stopping_rule(REQUIRED)(measured) is is_clear


def test_settling_early_asks_for_more_than_the_verdict_does() -> None:
    measured = accuracy(1744, 16, 10, agreed=2000)
    assert judge("accuracy", accuracy=measured).verdict is Verdict.PASS
    assert not stopping_rule(REQUIRED)(measured)


def test_importing_gates_does_not_import_torch() -> None:
    code = "import sys, ptqbench.gates; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
