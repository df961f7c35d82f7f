"""Results that are written, read back and judged again."""

from __future__ import annotations

import json
import math

import pytest
import torch

from ptqbench.errors import UserError
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates import Evidence, Verdict, evaluate, gates_in_order
from ptqbench.measurement.accuracy_record import Accuracy, ClassSpread, Pairs
from ptqbench.measurement.bn_folding import Folding
from ptqbench.measurement.conversion import Conversion
from ptqbench.measurement.fidelity import Fidelity
from ptqbench.measurement.fusion import Fusion
from ptqbench.measurement.intervals import ratio_interval
from ptqbench.measurement.parity import Parity
from ptqbench.measurement.saturation import LayerArithmetic, Saturation
from ptqbench.measurement.size import Size
from ptqbench.measurement.speed import PairedSamples, Speed
from ptqbench.measurement.sqnr import LogitNoise
from ptqbench.settings.thresholds import Thresholds

FIRST = tuple(20.0 + index % 3 for index in range(24))
SECOND = tuple(10.0 + index % 2 for index in range(24))
MEASUREMENTS = {
    "accuracy": Accuracy(
        n=2000,
        agreed=1980,
        noise=LogitNoise(2000, 2000.0, 4.0, 2001.0, 0.01, 4.0),
        top1=Pairs(1700, 12, 9, 279),
        top5=Pairs(1990, 2, 3, 5),
        classes=16,
        broken=("a.png",),
        labels=ClassSpread(16, 125),
        predictions=ClassSpread(16, 140),
    ),
    "speed": Speed(
        speedup=ratio_interval(FIRST, SECOND),
        float32_ms=21.0,
        int8_ms=10.5,
        noise=ratio_interval(FIRST, FIRST),
        pairs=24,
        threads=2,
        input_shape=(1, 3, 224, 224),
        float32_plain_ms=None,
        samples=PairedSamples(FIRST, SECOND),
        noise_samples=PairedSamples(FIRST, FIRST),
    ),
    "size": Size(45_000_000, 11_500_000),
    "fusion": Fusion(20, 20, (), 1e-6, 8, folding=Folding(3, ())),
    "conversion": Conversion(
        21, tuple(f"layer{i}" for i in range(21)), (), (), (), (), (), (), (), (), None, ()
    ),
    "fidelity": Fidelity(4, 4, 0.0, "onednn", "onednn", "onednn"),
    "saturation": Saturation(
        "onednn", {"linear": 1.0}, (LayerArithmetic("fc", 32, 0, 0.0, False, False),), 2, True
    ),
    "parity": Parity.of(torch.eye(8), torch.eye(8) + 0.01, torch.eye(8) + 0.011),
}


def report(measurements: dict[str, object] = MEASUREMENTS) -> Report:
    evidence = Evidence(
        Thresholds(speedup={"avx2": 1.5}),
        "avx2",
        measurements,
        {"speed": "It was not timed."} if "speed" not in measurements else {},
        kernels_for=("avx2",),
    )
    case = CaseResult(
        model="resnet18",
        weights="fixture",
        backend="onednn",
        data="fixture",
        recipe="abc",
        metrics={"agreement": 0.99, "speedup": 2.0},
        gates=evaluate(evidence),
        facts={"engine": "onednn"},
        evidence=evidence,
    )
    return Report({"cpu": "a CPU"}, (case,), {"seed": 0}, notes=("A note.",))


def read_back(original: Report) -> Report:
    return Report.from_dict(json.loads(json.dumps(original.to_dict(), allow_nan=False)))


def test_a_report_survives_json_with_its_raw_samples() -> None:
    original = report()
    restored = read_back(original)
    assert restored == original
    speed = restored.cases[0].evidence.measurements["speed"]  # type: ignore[union-attr]
    samples = speed.samples
    assert ratio_interval(samples.first_ms, samples.second_ms) == speed.speedup
    assert restored.exit_code() == original.exit_code() == 0


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_what_json_has_no_number_for_survives_in_the_evidence(number: float) -> None:
    size = {"fidelity": Fidelity(4, 0, number, "", "x86", "x86")}
    case = read_back(report(size)).cases[0]
    assert case.evidence is not None
    difference = case.evidence.measurements["fidelity"].difference
    assert difference == number or (math.isnan(number) and math.isnan(difference))


def test_a_case_is_judged_again_from_its_file() -> None:
    (case,) = read_back(report()).cases
    assert case.verdict is Verdict.PASS
    stricter = case.judged_by(Thresholds(speedup={"avx2": 2.5}, agreement=0.999))
    verdicts = {gate.name: gate.verdict for gate in stricter.gates}
    failed = {name for name, verdict in verdicts.items() if verdict is Verdict.FAIL}
    assert failed == {"agreement", "speedup"}
    assert list(verdicts) == [gate.name for gate in gates_in_order()]
    unmeasured = CaseResult("m", "w", "b", "d", "", {}, ())
    with pytest.raises(ValueError, match="no measurements"):
        unmeasured.judged_by(Thresholds())


def test_a_missing_measurement_keeps_its_reason() -> None:
    (case,) = read_back(report({"size": Size(4, 1)})).cases
    gates = {gate.name: gate for gate in case.judged_by(Thresholds()).gates}
    assert gates["size"].verdict is Verdict.PASS
    assert gates["speedup"].detail == "It was not timed."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 1}, "it is version 1, but this ptqbench .* reads version 2"),
        ({"schema_version": None}, "not a result of ptqbench"),
        ({"cases": [{}]}, "cannot be read: KeyError"),
        ({"cases": None}, "cannot be read"),
    ],
)
def test_other_content_is_refused_in_a_sentence(change: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Report.from_dict({**report().to_dict(), **change})
    with pytest.raises(UserError, match="not a result of ptqbench"):
        Report.from_dict([])  # type: ignore[arg-type]


def test_damaged_evidence_is_refused_in_a_sentence() -> None:
    content = json.loads(json.dumps(report().to_dict()))
    content["cases"][0]["evidence"]["measurements"]["size"]["float32_bytes"] = "many"
    with pytest.raises(UserError, match="cannot be read"):
        Report.from_dict(content)
