"""Policies of the gates on accuracy, agreement and size: what is in force, and what it says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch
from scipy import stats
from torch import Tensor

from ptqbench.cli import main
from ptqbench.errors import UserError
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates import GATES, Evidence, GateResult, Verdict, gates_in_order
from ptqbench.gates.stopping import stopping_rule
from ptqbench.measurement.accuracy import measure_accuracy
from ptqbench.measurement.accuracy_record import Accuracy, Pairs
from ptqbench.measurement.size import Size
from ptqbench.measurement.sqnr import LogitNoise
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.reporting import console
from ptqbench.reporting.json_report import schema, to_json
from ptqbench.reporting.markdown import to_markdown
from ptqbench.reporting.settings_table import settings_view
from ptqbench.reporting.terminal import report_view
from ptqbench.settings.discovery import load
from ptqbench.settings.layers import Layer, marker_layer, merged
from ptqbench.settings.parsing import parse_thresholds, threshold_changes
from ptqbench.settings.schema import threshold_names
from ptqbench.settings.thresholds import INSTRUCTION_SETS, Thresholds
from ptqbench.settings.values import SIZE
from ptqbench.testing.records import sentence

PASS, FAIL = Verdict.PASS, Verdict.FAIL
INCONCLUSIVE, UNVERIFIED = Verdict.INCONCLUSIVE, Verdict.UNVERIFIED


def noise(decibels: float, n: int = 2000, spread: float = 0.0) -> LogitNoise:
    """Sums of images that are alike but for their noise, which varies by ``spread``."""
    power = 10 ** (-decibels / 10)
    return LogitNoise(n, n, n * power, n, n * (power * (1 + spread)) ** 2, n * power)


def accuracy(
    top1: tuple[int, int, int, int] | None = (1750, 10, 10, 230),
    top5: tuple[int, int, int, int] | None = (1960, 5, 5, 30),
    agreed: int = 1970,
    sqnr: LogitNoise | None = None,
    classes: int = 16,
) -> Accuracy:
    pairs = [None if counts is None else Pairs(*counts) for counts in (top1, top5)]
    return Accuracy(2000, agreed, sqnr or noise(30.0), *pairs, classes)


UNLABELLED = accuracy(None, None)


def judge(gate: str, measured: Accuracy | Size, **thresholds: object) -> GateResult:
    part = "size" if isinstance(measured, Size) else "accuracy"
    required = Thresholds(**thresholds)  # type: ignore[arg-type]
    return GATES.get(gate)(Evidence(required, "avx2", {**{part: measured}}))  # type: ignore[arg-type]


# --- policies for top-1


@pytest.mark.parametrize("lost", range(0, 60, 4))
def test_absolute_points_are_the_paired_difference(lost: int) -> None:
    measured = accuracy((1750 - lost, 10 + lost, 10, 230))
    assert measured.top1 is not None
    difference = measured.top1.difference()
    result = judge("accuracy", measured, accuracy_points=1.0)
    expected = PASS if 100 * difference.low >= -1 else INCONCLUSIVE
    assert result.verdict is (FAIL if 100 * difference.high < -1 else expected)
    assert result.criterion == "accuracy_points"
    assert result.observed == pytest.approx(-lost / 20)
    assert (result.threshold, result.n) == (-1.0, 2000)
    assert result.interval == pytest.approx((100 * difference.low, 100 * difference.high))


def test_points_and_share_judge_the_same_loss_differently() -> None:
    # 0.9 points of 30 %: three times what the share allows.
    measured = accuracy((582, 18, 0, 1400))
    assert judge("accuracy", measured, accuracy=0.99).verdict is FAIL
    assert judge("accuracy", measured, accuracy_points=2.0).verdict is PASS


@pytest.mark.parametrize(
    ("reference", "verdict"), [(0.86, PASS), (0.87, INCONCLUSIVE), (0.9, FAIL)]
)
def test_a_fixed_reference_is_held_against_int8_alone(reference: float, verdict: Verdict) -> None:
    measured = accuracy((1750, 150, 6, 94))  # float32 has 95 %, int8 87.8 %
    result = judge("accuracy", measured, reference_top1=reference)
    interval = stats.binomtest(1756, 2000).proportion_ci(method="wilson")
    assert result.verdict is verdict
    assert result.interval == pytest.approx((interval.low, interval.high))
    assert (result.observed, result.threshold) == (0.878, reference)
    assert result.criterion == "reference_top1"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (
            {},
            "By share kept: int8 keeps 99.32% of float32's top-1 (87.40% after float32's 88.00%",
        ),
        ({"accuracy": 0.985}, "required: 98.50%); 18 images right only in float32, 6 only in"),
        ({"accuracy_points": 2.5}, "By absolute points: int8 loses 0.60 points of top-1 (87.40%"),
        ({"accuracy_points": 2.5}, "allowed loss: 2.50)"),
        (
            {"reference_top1": 0.85},
            "By fixed reference: int8's top-1 is 87.40% (required: 85.00%",
        ),
    ],
)
def test_the_detail_says_policy_observed_and_allowed(policy: dict[str, float], words: str) -> None:
    assert words in judge("accuracy", accuracy((1742, 18, 6, 234)), **policy).detail


def test_one_policy_is_in_force() -> None:
    assert Thresholds().top1_policy == ("accuracy", 0.99)
    points = Thresholds(accuracy_points=1.0)
    assert (points.accuracy, points.top1_policy) == (None, ("accuracy_points", 1.0))
    for policy in ("accuracy", "accuracy_points", "reference_top1"):
        changed = points.replaced({policy: 0.5, "agreement": 0.9})
        assert changed.top1_policy == (policy, 0.5)
        assert changed.agreement == 0.9
    assert points.replaced({"top5": 0.9}).top1_policy == ("accuracy_points", 1.0)
    with pytest.raises(UserError, match="sets accuracy and reference_top1, but top-1 is judged"):
        Thresholds(accuracy=0.98, reference_top1=0.7)
    with pytest.raises(UserError, match="accuracy and accuracy_points"):
        Thresholds().replaced({"accuracy": 0.98, "accuracy_points": 1})
    with pytest.raises(UserError, match=r"'acuracy'.* Did you mean accuracy"):
        Thresholds().replaced({"acuracy": 0.98})


# --- top-5


def test_top5_is_shown_and_judged_only_where_it_has_a_threshold() -> None:
    lost = accuracy(top5=(1850, 110, 0, 40))
    shown = judge("accuracy", lost)
    assert (shown.verdict, shown.criterion) == (PASS, "accuracy")
    assert "Top-5: 92.50% after 98.00%." in shown.detail
    result = judge("accuracy", lost, top5=0.99)
    assert (result.verdict, result.criterion, result.threshold) == (FAIL, "top5", 0.99)
    assert result.observed == pytest.approx(1850 / 1960)
    assert "required: 99.00% of float32's" in result.detail
    assert "By share kept" in result.detail
    both = judge("accuracy", accuracy((1500, 260, 0, 240), (1850, 110, 0, 40)), top5=0.99)
    assert (both.verdict, both.criterion) == (FAIL, "accuracy")
    straddles = judge("accuracy", accuracy(top5=(1935, 25, 5, 35)), top5=0.99)
    assert (straddles.verdict, straddles.criterion) == (INCONCLUSIVE, "top5")


def test_top5_of_five_classes_is_never_green_by_being_always_right() -> None:
    few = accuracy(top5=(2000, 0, 0, 0), classes=5)
    assert judge("accuracy", few).verdict is PASS
    result = judge("accuracy", few, top5=0.99)
    assert (result.verdict, result.criterion, result.observed) == (UNVERIFIED, "top5", None)
    assert "with 5 classes top-5 is always 100%: remove this threshold" in result.detail
    worse = judge("accuracy", replace(few, top1=Pairs(1500, 260, 0, 240)), top5=0.99)
    assert (worse.verdict, worse.criterion) == (FAIL, "accuracy")


# --- SQNR


@pytest.mark.parametrize(
    ("sqnr", "verdict"),
    [
        (noise(31.0, spread=1.0), PASS),
        (noise(25.1, spread=10.0), INCONCLUSIVE),
        (noise(12.0, spread=1.0), FAIL),
        (noise(math.inf), PASS),
        (LogitNoise(2000, 1.0, math.inf), FAIL),
    ],
    ids=["sound", "near", "poor", "equal", "not numbers"],
)
def test_sqnr_where_it_has_a_threshold(sqnr: LogitNoise, verdict: Verdict) -> None:
    measured = accuracy(sqnr=sqnr)
    shown = judge("agreement", measured)
    assert (shown.verdict, shown.criterion) == (PASS, "agreement")
    result = judge("agreement", measured, sqnr_db=25.0)
    assert result.verdict is verdict
    assert "required: 25.0 dB" in result.detail
    assert ("saturation" in result.detail) is (verdict is FAIL)
    if verdict is not PASS:
        assert (result.criterion, result.threshold) == ("sqnr_db", 25.0)
        assert result.interval == (measured.sqnr.low, measured.sqnr.high)


def test_one_image_decides_nothing_about_sqnr() -> None:
    one = replace(accuracy(sqnr=noise(40.0, n=1)), n=1, agreed=1)
    result = judge("agreement", one, agreement=0.1, sqnr_db=20.0)
    assert (result.verdict, result.criterion) == (INCONCLUSIVE, "sqnr_db")


# --- without labels


def test_without_labels_top1_is_unverified_and_says_so() -> None:
    for policy in ({}, {"accuracy_points": 1.0}, {"reference_top1": 0.7}):
        result = judge("accuracy", UNLABELLED, **policy)
        assert result.verdict is UNVERIFIED
        assert (result.observed, result.interval) == (None, None)
        assert result.criterion == next(iter(policy), "accuracy")
        assert "have no labels" in result.detail and "agreement and SQNR decide" in result.detail


@pytest.mark.parametrize(
    ("sqnr_db", "agreed", "verdict", "criterion"),
    [
        (30.0, 1990, PASS, "agreement"),
        (30.0, 1700, FAIL, "agreement"),
        (8.0, 1990, FAIL, "sqnr_db"),
    ],
)
def test_without_labels_agreement_and_sqnr_decide(
    sqnr_db: float, agreed: int, verdict: Verdict, criterion: str
) -> None:
    measured = replace(UNLABELLED, agreed=agreed, noise=noise(sqnr_db))
    result = judge("agreement", measured)
    assert (result.verdict, result.criterion) == (verdict, criterion)
    assert "no labels, so these two decide" in result.detail
    assert "required: 10.0 dB" in result.detail
    labelled = judge("agreement", accuracy(agreed=1990, sqnr=noise(8.0)))
    assert labelled.verdict is PASS
    assert judge("agreement", replace(measured, agreed=1990), sqnr_db=5.0).verdict is PASS


# --- when to stop


@pytest.mark.parametrize(
    ("measured", "thresholds", "is_clear"),
    [
        (accuracy(agreed=1990), {}, True),
        (accuracy((1725, 35, 10, 230), agreed=1990), {}, False),
        (accuracy((1725, 35, 10, 230), agreed=1990), {"accuracy_points": 5.0}, True),
        (accuracy((1725, 35, 10, 230), agreed=1990), {"accuracy_points": 1.0}, False),
        (accuracy(agreed=1990), {"reference_top1": 0.88}, False),
        (accuracy(agreed=1990), {"reference_top1": 0.8}, True),
        (accuracy(agreed=1990), {"reference_top1": 0.95}, True),
        (accuracy(top5=(1935, 25, 5, 35), agreed=1990), {}, True),
        (accuracy(top5=(1935, 25, 5, 35), agreed=1990), {"top5": 0.99}, False),
        (
            accuracy((1500, 260, 0, 240), (1935, 25, 5, 35), agreed=1990),
            {"top5": 0.99},
            True,
        ),
        (accuracy(agreed=1990, sqnr=noise(25.1, spread=10)), {}, True),
        (accuracy(agreed=1990, sqnr=noise(25.1, spread=10)), {"sqnr_db": 25.0}, False),
        (accuracy(agreed=1990, classes=5), {"top5": 0.99}, True),
        (replace(UNLABELLED, agreed=1990), {"reference_top1": 0.88}, True),
        (replace(UNLABELLED, agreed=1905), {}, False),
        (replace(UNLABELLED, agreed=1990, noise=noise(10.1, spread=10)), {}, False),
        (replace(UNLABELLED, agreed=1700, noise=noise(10.1, spread=10)), {}, True),
    ],
)
def test_evaluation_goes_on_until_every_verdict_is_clear(
    measured: Accuracy, thresholds: dict[str, float], is_clear: bool
) -> None:
    assert stopping_rule(Thresholds(**thresholds))(measured) is is_clear  # type: ignore[arg-type]


class Numbered:
    """Images whose only pixel is their number; int8 is wrong on the same share everywhere."""

    name, classes, count, limit = "numbered", ("a", "b"), 2000, 10_000

    def __init__(self, labelled: bool = True) -> None:
        self.labelled = labelled

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(start, stop, batch_size):
            numbers = torch.arange(first, min(first + batch_size, stop))
            labels = numbers % 2 if self.labelled else torch.full_like(numbers, -1)
            yield numbers.float().reshape(-1, 1, 1, 1), labels

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        return map(str, range(start, stop))


def logits(pixels: Tensor, wrong_every: int | None = None) -> Tensor:
    """Scores of two classes: the label's first, except on every so many-th image."""
    numbers = pixels.flatten().long()
    classes = numbers % 2
    if wrong_every is not None:
        classes = torch.where(numbers % wrong_every == 0, 1 - classes, classes)
    return torch.nn.functional.one_hot(classes, 2).float() * 4 + 1


@pytest.mark.parametrize(
    ("thresholds", "labelled", "n"),
    [
        ({"accuracy_points": 5.0}, True, 2000),
        ({"accuracy_points": 1.5}, True, 5000),
        ({"accuracy_points": 2.0}, True, 10_000),
        ({"reference_top1": 0.98}, True, 10_000),
        ({"agreement": 0.98}, False, 10_000),
        ({"sqnr_db": 10.0}, False, 2000),
    ],
)
def test_every_policy_asks_for_images_and_for_no_more_than_there_are(
    thresholds: dict[str, float], labelled: bool, n: int
) -> None:
    required = Thresholds(**{"agreement": 0.9, **thresholds})  # type: ignore[arg-type]
    measured = measure_accuracy(
        logits,
        lambda pixels: logits(pixels, 50),  # 2 % wrong
        Numbered(labelled),
        batch_size=1000,
        stop_when=stopping_rule(required),
    )
    assert measured.n == n
    gates = ["agreement", "accuracy"] if labelled else ["agreement"]
    verdicts = {
        GATES.get(gate)(Evidence(required, "avx2", {"accuracy": measured})).verdict
        for gate in gates
    }
    assert (INCONCLUSIVE in verdicts) is (n == 10_000)


# --- size


@pytest.mark.parametrize(
    ("int8", "budget", "verdict", "criterion", "words"),
    [
        (250, 300, PASS, "size_ratio", "the budget is 300 bytes: 50 bytes are left"),
        (250, 250, PASS, "size_ratio", "0 bytes are left"),
        (250, 249, FAIL, "max_bytes", "the budget is 249 bytes: int8 is 1 bytes over it"),
        (400, 500, FAIL, "size_ratio", "required: 3.00 times, and the budget is 500 bytes"),
        (400, 300, FAIL, "size_ratio", "int8 is 100 bytes over it"),
        (250, None, PASS, "size_ratio", "required: 3.00 times."),
    ],
)
def test_size_with_a_budget(
    int8: int, budget: int | None, verdict: Verdict, criterion: str, words: str
) -> None:
    result = judge("size", Size(1000, int8), max_bytes=budget)
    assert (result.verdict, result.criterion) == (verdict, criterion)
    assert words in result.detail
    expected = (int8, budget) if criterion == "max_bytes" else (1000 / int8, 3.0)
    assert (result.observed, result.threshold) == expected


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (3_000_000, 3_000_000), ("3000000", 3_000_000), ("3 MiB", 3 * 2**20),
        ("2.5MB", 2_500_000), ("1.1 MB", 1_100_000), ("500 kB", 500_000), ("1gib", 2**30),
        ("0.7 KiB", 716), (2e6, 2_000_000),
    ],
)  # fmt: skip
def test_sizes_are_read_with_units(value: object, size: int) -> None:
    assert SIZE.parse(value, Path()) == size


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, True, None, "", "3 MBit", "3,5 MB", "-3 MB", "0.1 B", math.nan, "1e6"]
)
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="3 MiB"):
        SIZE.parse(value, Path())


# --- settings


def written(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(f"[tool.ptqbench]\n{text}\n")
    return folder


def test_a_more_specific_layer_replaces_the_policy_of_a_less_specific_one(tmp_path: Path) -> None:
    settings = load(
        written(
            tmp_path,
            "thresholds.accuracy_points = 1\nthresholds.max_bytes = '3 MiB'\n"
            'thresholds.top5 = 0.98\n[tool.ptqbench.model."mobilenet_*"]\n'
            "thresholds.reference_top1 = 0.7\n",
        ),
        CATALOG,
    )
    recipe = Thresholds(accuracy=0.97)
    for model, policy in (
        ("resnet18", ("accuracy_points", 1.0)),
        ("mobilenet_v2", ("reference_top1", 0.7)),
    ):
        case, _ = settings.case(model)
        changed = recipe.replaced(case.thresholds)
        assert changed.top1_policy == policy
        assert (changed.max_bytes, changed.top5) == (3 * 2**20, 0.98)
        assert None not in case.thresholds.values()
    marker = marker_layer((), {"accuracy": 0.9}, "a test")
    case, origins = settings.case("mobilenet_v2", marker)
    assert recipe.replaced(case.thresholds).top1_policy == ("accuracy", 0.9)
    assert origins["accuracy"] == origins["reference_top1"] == "marker"
    line = Layer("command line", {"thresholds.accuracy_points": 2.0})
    case, _ = load(tmp_path, CATALOG, line).case("mobilenet_v2", marker)
    assert recipe.replaced(case.thresholds).top1_policy == ("accuracy_points", 2.0)
    text = console.render(settings_view(settings, ["resnet18"]), 120)
    rows = {row.split()[0]: row.split()[1] for row in text.splitlines() if row}
    assert rows["thresholds.accuracy"] == "–"
    assert rows["thresholds.accuracy_points"] == "1.0"


def test_the_closest_marker_chooses_the_policy() -> None:
    inner = marker_layer((), {"accuracy_points": 1}, "a test")
    outer = marker_layer((), {"accuracy": 0.9, "top5": 0.9}, "its module")
    assert merged([inner, outer]).values == {
        "thresholds.accuracy_points": 1.0,
        "thresholds.top5": 0.9,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "thresholds.accuracy = 0.98\nthresholds.accuracy_points = 1",
            "pyproject.toml [tool.ptqbench] sets thresholds.accuracy and "
            "thresholds.accuracy_points, but top-1 is judged by one policy",
        ),
        ("thresholds.reference_top1 = 69.76", "a share between 0 and 1"),
        ("thresholds.accuracy_points = 101", "percentage points between 0 and 100"),
        ("thresholds.max_bytes = '3 MBit'", "`3 MiB` or `2.5 MB`, but got '3 MBit'"),
        ("thresholds.sqnr = 25", "Did you mean thresholds.sqnr_db"),
        ("thresholds.top5 = 'all'", "a share between 0 and 1"),
    ],
)
def test_wrong_policies_are_said_with_their_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(written(tmp_path, text), CATALOG)
    message = str(caught.value)
    assert words in (message.replace("Pyproject", "pyproject") if "pyproject" in words else message)


def test_two_policies_on_one_marker_are_an_error() -> None:
    with pytest.raises(UserError, match="The marker ptqbench on a test sets"):
        marker_layer((), {"accuracy": 0.9, "reference_top1": 0.7}, "a test")


def test_the_option_takes_every_threshold() -> None:
    texts = ["agreement=0.97", "max_bytes=3 MiB", "speedup=1.2", "speedup.avx2=1.5",
             "accuracy=0.9", "accuracy=0.95", "sqnr_db = 25"]  # fmt: skip
    changes = threshold_changes(parse_thresholds(texts, "--threshold"))
    speedup = dict.fromkeys((name for name in INSTRUCTION_SETS if name != "avx2"), 1.2)
    assert changes == {
        "agreement": 0.97,
        "max_bytes": 3 * 2**20,
        "speedup": {"avx2": 1.5, **speedup},
        "accuracy": 0.95,
        "sqnr_db": 25.0,
    }


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["accuracy"], "--threshold takes NAME=VALUE, like accuracy=0.99 or speedup.avx2=1.5, but"),
        (["accuracy="], "takes NAME=VALUE"),
        (["acuracy=1"], "Unknown threshold 'acuracy'. Did you mean accuracy"),
        (["speedup.avx3=1"], "Unknown threshold 'speedup.avx3'. Did you mean speedup.avx2"),
        (["accuracy=99"], "expected a share between 0 and 1 (0.99 is 99 %), but got 99"),
        (["top5=nan"], "a share between 0 and 1"),
        (["accuracy=0.9", "accuracy_points=1"], "--threshold sets thresholds.accuracy and"),
    ],
)
def test_mistakes_in_the_option(texts: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_thresholds(texts, "--threshold")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--threshold", "acuracy=1"], "Did you mean accuracy"),
        (["--threshold", "accuracy=1", "--threshold", "reference_top1=1"], "Keep one of them"),
        (["--max-bytes", "much"], "--max-bytes: expected bytes"),
    ],
)
def test_the_command_line_says_so_before_anything_is_measured(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["run", *argv])
    except SystemExit as left:
        code = left.code  # type: ignore[assignment]
    assert code == 2
    assert words in capsys.readouterr().err


# --- what is shown


def report(*gates: GateResult, **metrics: float | None) -> Report:
    machine = {"cpu": "a", "instruction_set": "avx2", "physical_cores": 2, "python": "3.11",
               "torch": "2.13"}  # fmt: skip
    case = CaseResult("resnet18", "fixture", "x86", "photos", "ab", metrics, gates)
    return Report(machine, (case,))


@pytest.mark.parametrize(
    ("gate", "numbers"),
    [
        (
            judge("accuracy", accuracy((1700, 60, 0, 240)), accuracy_points=1.0),
            "-3.00 points (-3.79 to -2.26), needs -1.00 points. By absolute points",
        ),
        (
            judge("accuracy", accuracy(), reference_top1=0.95),
            "88.00 % (86.50–89.35), needs 95.00 %. By fixed reference",
        ),
        (
            judge("agreement", accuracy(sqnr=noise(12.0)), sqnr_db=25.0),
            "12.0 dB (12.0–12.0), needs 25.0 dB. float32 and int8",
        ),
        (
            judge("size", Size(12_000_000, 3_500_000), max_bytes=3_000_000),
            "3,500,000 bytes, needs at most 3,000,000 bytes. float32 takes",
        ),
    ],
    ids=["points", "reference", "sqnr", "budget"],
)
def test_reports_show_the_numbers_of_the_policy(gate: GateResult, numbers: str) -> None:
    assert gate.verdict is FAIL
    whole = report(gate)
    terminal = " ".join(console.render(report_view(whole, 100), 100).split())
    assert numbers in terminal
    assert numbers in " ".join(to_markdown(whole).replace("\\", "").split())
    observed, needs = numbers.split(". ")[0].split(", needs ")
    assert f"Observed {observed.split(' (')[0]}" in sentence(whole.cases[0], gate)
    assert f", needs {needs}" in sentence(whole.cases[0], gate)
    content = json.loads(to_json(whole))
    jsonschema.Draft202012Validator(schema()).validate(content)
    assert content["cases"][0]["gates"][0]["criterion"] == gate.criterion
    assert CaseResult.from_dict(whole.cases[0].to_dict()).gates[0] == gate


def test_numbers_without_labels_are_a_dash() -> None:
    gates = [judge(name, UNLABELLED) for name in ("accuracy", "agreement")]
    unknown = dict.fromkeys(("float32_top1", "int8_top1", "float32_top5", "int8_top5"))
    whole = report(*gates, **unknown, agreement=0.985, sqnr_db=30.0)
    lines = console.render(report_view(whole, 100), 100).splitlines()
    row = next(line for line in lines if "resnet18" in line).split()
    assert row[:5] == ["○", "resnet18", "–", "98.50", "%"]
    text = " ".join(" ".join(lines).split())
    assert "unverified accuracy of resnet18 on x86: The 2,000 images have no labels" in text
    assert "| resnet18 | x86 | ⚪ unverified | – | 98.50 |" in to_markdown(whole)
    content = json.loads(to_json(whole))
    jsonschema.Draft202012Validator(schema()).validate(content)
    assert {content["cases"][0]["metrics"][name] for name in unknown} == {None}


def test_the_document_covers_every_gate_and_every_threshold() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gates.md").read_text("utf-8")
    sections = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert [name for name in sections if name in GATES] == [gate.name for gate in gates_in_order()]
    names = [row.split("`")[1] for row in text.splitlines() if row.startswith("| `")]
    thresholds = [name.partition(".")[0] for name in names if name not in set(Verdict)]
    assert set(thresholds) == set(threshold_names())
