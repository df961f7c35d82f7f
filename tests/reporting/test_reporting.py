"""The report: what JSON says, what a person sees, and what the exit code is."""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy
import pytest
from rich.console import RenderableType

from ptqbench.core.phases import Phase
from ptqbench.evaluation.inventory import collect, read_weights
from ptqbench.evaluation.result import METRICS, CaseResult, Prediction, Report, plain
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import Verdict, worst
from ptqbench.recipes import Recipe
from ptqbench.reporting import console
from ptqbench.reporting import format as numbers
from ptqbench.reporting.inventory_table import inventory_view
from ptqbench.reporting.json_report import schema, to_json
from ptqbench.reporting.prediction_table import prediction_view
from ptqbench.reporting.report_files import write_reports
from ptqbench.reporting.terminal import report_view
from ptqbench.reporting.timings_table import overhead, timings_view
from ptqbench.settings.thresholds import Thresholds

PASS, FAIL = Verdict.PASS, Verdict.FAIL
INCONCLUSIVE, UNVERIFIED = Verdict.INCONCLUSIVE, Verdict.UNVERIFIED
GATES = ("accuracy", "agreement", "size", "speedup")
SIX = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "efficientnet_b0",
)
MACHINE = {
    "cpu": "AMD EPYC 7B13",
    "instruction_set": "avx2",
    "physical_cores": 2,
    "python": "3.11.7",
    "torch": "2.13.0+cpu",
}


def make_case(
    model: str = "resnet18",
    verdicts: tuple[Verdict, ...] = (PASS, PASS, PASS, PASS),
    backend: str = "onednn",
) -> CaseResult:
    metrics = dict(
        zip(
            METRICS,
            (0.8912, 0.8905, 0.99, 0.989, 0.9905, 34.9, 44.8e6, 11.3e6, 3.965, 33.8, 12.6, 2.68),
            strict=True,
        )
    )
    observed = (0.9992, 0.9905, 3.965, 2.68)
    intervals = ((0.995, 1.003), (0.985, 0.994), None, (2.61, 2.71))
    gates = tuple(
        GateResult(
            name, verdict, value, limit, interval, 2000, f"Sentence about {name} of {model}."
        )
        for name, verdict, value, limit, interval in zip(
            GATES, verdicts, observed, (0.99, 0.95, 3.5, 1.3), intervals, strict=True
        )
    )
    facts = {
        "engine": backend,
        "threads": 2,
        "input_shape": (1, 3, 224, 224),
        "evaluation_images": 2000,
        "noise_interval": (0.991, 1.012),
    }
    return CaseResult(model, "fixture", backend, "fixture", "ab12", metrics, gates, facts)


def make_unmeasured(model: str) -> CaseResult:
    reason = "This build of torch has no qnnpack engine."
    gates = tuple(GateResult(name, UNVERIFIED, None, None, None, None, reason) for name in GATES)
    return CaseResult(model, "fixture", "qnnpack", "fixture", "ab12", {}, gates)


def make_report(*cases: CaseResult) -> Report:
    return Report(MACHINE, cases)


def lines(item: RenderableType, width: int = 100) -> list[str]:
    return console.render(item, width).splitlines()


def shown(report: Report, width: int = 100) -> str:
    return console.render(report_view(report, width), width)


# Verdicts and exit codes


@pytest.mark.parametrize(
    ("verdicts", "code", "strict"),
    [
        ((PASS, PASS, PASS, PASS), 0, 0),
        ((PASS, FAIL, PASS, PASS), 1, 1),
        ((UNVERIFIED, FAIL, INCONCLUSIVE, PASS), 1, 1),
        ((PASS, INCONCLUSIVE, PASS, PASS), 0, 3),
        ((PASS, PASS, PASS, UNVERIFIED), 0, 3),
    ],
)
def test_exit_code(verdicts: tuple[Verdict, ...], code: int, strict: int) -> None:
    report = make_report(make_case(), make_case("mobilenet_v2", verdicts))
    assert report.exit_code() == code
    assert report.exit_code(strict=True) == strict


def test_nothing_measured_is_never_a_pass() -> None:
    assert worst([]) is UNVERIFIED
    assert make_report().exit_code(strict=True) == 3
    assert replace(make_case(), gates=()).verdict is UNVERIFIED
    assert "Nothing was measured" in shown(make_report())
    assert "no gates" in shown(make_report(replace(make_case(), gates=())))


# JSON


def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def test_json_fits_its_schema_and_keeps_the_numbers() -> None:
    report = replace(
        make_report(make_case(), make_unmeasured("mobilenet_v2")),
        phases=(Phase("int8 predictions", 1.5, True),),
        wall_seconds=3.0,
        settings={"seed": 0, "overrides": {"mean": (0.5, 0.5, 0.5)}},
    )
    content = json.loads(to_json(report))
    validator().validate(content)
    assert content["schema_version"] == 2
    first, second = content["cases"]
    assert first["metrics"] == pytest.approx(dict(make_case().metrics))
    assert set(second["metrics"]) == set(METRICS)
    assert set(second["metrics"].values()) == {None}
    assert first["gates"][0] == {
        "name": "accuracy",
        "verdict": "pass",
        "observed": 0.9992,
        "threshold": 0.99,
        "interval": [0.995, 1.003],
        "n": 2000,
        "detail": "Sentence about accuracy of resnet18.",
        "criterion": None,
    }
    assert first["facts"]["input_shape"] == [1, 3, 224, 224]
    assert content["phases"] == [{"name": "int8 predictions", "seconds": 1.5, "forward": True}]
    assert content["settings"]["overrides"]["mean"] == [0.5, 0.5, 0.5]


def test_json_has_no_infinities() -> None:
    case = make_case()
    gate = replace(case.gates[1], observed=math.nan, interval=(-math.inf, 1.0))
    case = replace(
        case,
        metrics={**case.metrics, "sqnr_db": math.inf, "something_new": 4.0},
        gates=(gate,),
        facts={"noise": -math.inf, "path": Path("a/b"), "verdict": PASS},
    )
    content = json.loads(to_json(make_report(case)), parse_constant=pytest.fail)
    validator().validate(content)
    assert content["cases"][0]["metrics"]["sqnr_db"] is None
    assert content["cases"][0]["metrics"]["something_new"] == 4.0
    assert content["cases"][0]["gates"][0]["interval"] == [None, 1.0]
    assert content["cases"][0]["facts"] == {"noise": None, "path": "a/b", "verdict": "pass"}


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("schema_version",), 1),
        (("verdict",), "green"),
        (("cases", 0, "gates", 0, "verdict"), "ok"),
        (("cases", 0, "gates", 0, "interval"), [1.0]),
        (("cases", 0, "gates", 0, "interval"), [1.0, 2.0, 3.0]),
        (("cases", 0, "metrics", "agreement"), 98.6),
        (("cases", 0, "metrics", "int8_bytes"), "11 MB"),
        (("machine",), {}),
    ],
)
def test_schema_refuses(where: tuple[str | int, ...], value: object) -> None:
    content = json.loads(to_json(make_report(make_case())))
    inner = content
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    assert not validator().is_valid(content)


@pytest.mark.parametrize("metric", METRICS)
def test_schema_demands_every_metric(metric: str) -> None:
    content = json.loads(to_json(make_report(make_case())))
    del content["cases"][0]["metrics"][metric]
    assert not validator().is_valid(content)


def test_plain_takes_numpy_and_refuses_what_json_cannot_say() -> None:
    assert plain({"a": numpy.float32(0.5), "b": numpy.int64(3)}) == {"a": 0.5, "b": 3}
    assert plain(True) is True
    with pytest.raises(TypeError, match="no counterpart in JSON"):
        plain(object())


def test_result_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    report = make_report(make_case())
    assert write_reports(report, {"json": path}) == []
    before = path.read_text("utf-8")
    assert before == to_json(report)

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    (failure,) = write_reports(make_report(), {"json": path})
    assert "No space left on device" in failure
    assert path.read_text("utf-8") == before
    assert os.listdir(tmp_path) == ["result.json"]


# The terminal


def test_six_cases_fit_one_screen_of_100_columns() -> None:
    text = shown(make_report(*map(make_case, SIX)))
    assert len(text.splitlines()) <= 22
    assert max(map(len, text.splitlines())) <= 100
    for words in (
        *SIX,
        *("89.12 → 89.05", "99.9 %", "99.05 %", "34.9 dB", "44.8 → 11.3", "3.96×"),
        *("33.8 → 12.6", "2.68× 2.61–2.71", "onednn · 2 threads", "2,000 images"),
        *("noise floor 0.991–1.012", "latency at 1×3×224×224", "6 cases: ✓ 6 pass"),
    ):
        assert words in text


@pytest.mark.parametrize("width", [80, 100, 140])
def test_every_gate_is_shown_within_the_width(width: int) -> None:
    mixed = [
        make_case(SIX[0], (PASS, FAIL, INCONCLUSIVE, UNVERIFIED)),
        *map(make_case, SIX[1:5]),
        make_unmeasured(SIX[5]),
    ]
    text = shown(make_report(*mixed), width)
    assert max(map(len, text.splitlines())) <= width
    for gate in GATES:
        assert text.count(gate) >= 6
    for line in ("✓ accuracy", "✗ agreement", "? size", "○ speedup"):
        assert line in text


def test_failures_come_first_and_details_follow_once() -> None:
    report = make_report(
        make_case("resnet18"),
        make_unmeasured("squeezenet1_1"),
        make_unmeasured("efficientnet_b0"),
        make_case("mobilenet_v2", (PASS, PASS, PASS, INCONCLUSIVE)),
        make_case("shufflenet_v2_x1_0", (FAIL, PASS, PASS, PASS)),
    )
    rows = lines(report_view(report, 100))
    table = [line[2:].split()[0] for line in rows if line[:2] in ("✗ ", "? ", "○ ", "✓ ")]
    assert table[:5] == [
        "shufflenet_v2_x1_0",
        "mobilenet_v2",
        "squeezenet1_1",
        "efficientnet_b0",
        "resnet18",
    ]
    text = " ".join(" ".join(rows).split())
    assert (
        "✗ fail accuracy of shufflenet_v2_x1_0 on onednn: 99.92 % (99.50–100.30), needs 99.00 %. "
        "Sentence about accuracy of shufflenet_v2_x1_0." in text
    )
    assert "2.68× (2.61–2.71), needs 1.30×. Sentence about speedup" in text
    assert text.count("no qnnpack engine") == 1
    assert "speedup of squeezenet1_1, efficientnet_b0 on qnnpack: This build" in text
    assert "Sentence about agreement" not in text
    assert rows[-1] == "5 cases: ✗ 1 fail   ? 1 inconclusive   ○ 2 unverified   ✓ 1 pass"


def test_notes_on_the_report_are_shown() -> None:
    report = replace(make_report(make_case()), notes=("Two models were left out.",))
    assert "Two models were left out." in shown(report)


def test_only_a_pass_is_green(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    green = "\x1b[32m"
    doubtful = make_case("resnet18", (UNVERIFIED, INCONCLUSIVE, FAIL, INCONCLUSIVE))
    view = report_view(make_report(doubtful, make_unmeasured("mobilenet_v2")), 100)
    assert "\x1b[" in console.render(view, 100, color=True)
    assert green not in console.render(view, 100, color=True)
    assert "\x1b[" not in console.render(view, 100)
    passed = report_view(make_report(make_case()), 100)
    assert green in console.render(passed, 100, color=True)


def test_brackets_in_names_and_details_are_not_markup() -> None:
    case = make_case("[bold]x[/]", (FAIL, PASS, PASS, PASS))
    gate = replace(case.gates[0], detail="keys [fc.weight] differ [/red]")
    text = shown(make_report(replace(case, gates=(gate,))))
    assert "[bold]x[/]" in text
    text = " ".join(text.split())
    assert "keys [fc.weight] differ [/red]" in text


def test_plain_stand_ins_where_the_encoding_has_no_symbols() -> None:
    text = shown(make_report(make_case("resnet18", (FAIL, PASS, INCONCLUSIVE, UNVERIFIED))))
    ascii_text = console.encodable(text, "ascii")
    assert ascii_text.isascii()
    assert "89.12 > 89.05" in ascii_text
    assert [len(line) for line in ascii_text.splitlines()] == [
        len(line) for line in text.splitlines()
    ]
    assert ascii_text.count("?") == text.count("?")
    assert console.encodable(text, "utf-8") == text


def test_width_and_colour_follow_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = io.StringIO()
    assert console.width_of(stream) == 100
    monkeypatch.setenv("COLUMNS", "80")
    assert console.width_of(stream) == 80
    monkeypatch.setenv("COLUMNS", "400")
    assert console.width_of(stream) == console.WIDEST


def test_a_reader_who_left_is_no_error() -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    stream = Closed()
    console.write("text", stream)
    assert stream.getvalue() == "text"


def test_numbers() -> None:
    assert numbers.percent(0.99996) == "99.99"
    assert numbers.percent(1.0) == "100.00"
    assert numbers.percent(None) == "–"
    assert numbers.decibel(math.inf) == "equal"
    assert [numbers.significant(x) for x in (0.756, 9.999, 33.84, 99.97, 104.2)] == [
        "0.76",
        "10.0",
        "33.8",
        "100",
        "104",
    ]
    assert numbers.number(True) is None
    assert numbers.number(math.nan) is None
    assert numbers.pair((1.0, None)) is None
    assert numbers.count(1, "case") == "1 case"


def test_timings_add_up_and_name_the_ratio() -> None:
    phases = (Phase("start", 1.0, False), Phase("int8 predictions", 8.0, True))
    assert overhead(phases, 10.0) == pytest.approx(1.25)
    assert overhead(phases[:1], 10.0) is None
    text = "\n".join(lines(timings_view(phases, 10.0)))
    assert "1.25 × its forward passes" in text
    cells = {
        line.rsplit(maxsplit=3)[0].strip(): line.split()[-3:-1]
        for line in text.splitlines()
        if line.endswith("%")
    }
    assert cells["everything else"] == ["1.00", "10.0"]
    assert cells["forward passes"] == ["8.00", "80.0"]


def test_prediction_shows_both_and_says_whether_they_differ() -> None:
    first = (("tabby [cat]", 0.9), ("tiger", 0.05))
    same = Prediction("resnet18", "fixture", "x86", first, first)
    text = "\n".join(lines(prediction_view(same, "photo.jpg")))
    assert "photo.jpg · resnet18, weights fixture, on x86" in text
    assert text.count("tabby [cat]") == 3
    assert "Both say tabby [cat]." in text
    other = replace(same, int8=(("tiger", 0.6), ("tabby [cat]", 0.3)))
    text = "\n".join(lines(prediction_view(other, "photo.jpg")))
    assert "They differ: float32 says tabby [cat], int8 says tiger." in text


# What there is


class _Thing:
    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


def make_inventory(folder: Path):  # type: ignore[no-untyped-def]
    thresholds = Thresholds(size_ratio=3.5, speedup={"avx2": 1.3})
    unsupported = {"qnnpack": "no such kernel"}
    return collect(
        [_Thing(name=name, input_size=(3, 224, 224)) for name in ("resnet18", "vgg11")],
        [
            Recipe("resnet18", "onednn", (("conv1", "bn1"),), 21, thresholds),
            Recipe("vgg11", "x86", None, None, thresholds, unsupported=unsupported),
        ],
        [
            _Thing(name="onednn", engine="onednn", availability=lambda: None),
            _Thing(name="qnnpack", engine="qnnpack", availability=lambda: "No such engine."),
        ],
        folder,
        "avx2",
        lambda model: ["IMAGENET1K_V1"],
        {("vgg11", "onednn"): ({"verdict": "pass"},)},
    )


def test_inventory_shows_weights_recipes_and_why_a_backend_is_missing(tmp_path: Path) -> None:
    (tmp_path / "resnet18.safetensors").write_bytes(b"")
    sidecar = {"float32_top1": 0.8912, "evaluation_images": 2000}
    (tmp_path / "resnet18.json").write_text(json.dumps(sidecar), "utf-8")
    inventory = make_inventory(tmp_path)
    for width in (80, 100):
        text = lines(inventory_view(inventory), width)
        assert max(map(len, text)) <= width
        rows = {line.split()[0]: line for line in text if line}
        assert rows["VGG"].split()[1:] == ["vgg11"]
        assert "not available: No such engine." in rows["qnnpack"]
    joined = "\n".join(text)
    assert "89.12 % of 2,000 images" in joined
    assert "1.30×" in joined
    content = json.loads(inventory.to_json())
    assert content["models"][0]["weights"]["float32_top1"] == 0.8912
    assert content["backends"][1]["unavailable"] == "No such engine."
    assert content["models"][0]["sources"] == ["fixture", "probe", "IMAGENET1K_V1"]
    assert content["models"][1]["sources"] == ["probe", "IMAGENET1K_V1"]
    assert content["recipes"][0]["fused_groups"] == 1
    matrix = {(entry["model"], entry["backend"]): entry for entry in content["matrix"]}
    assert len(matrix) == 4
    assert matrix["resnet18", "onednn"]["recommended"]
    assert matrix["vgg11", "qnnpack"]["unavailable"] == "No such engine."
    assert matrix["vgg11", "qnnpack"]["unsupported"] == "no such kernel"
    assert matrix["vgg11", "onednn"]["measured"] == [{"verdict": "pass"}]
    assert matrix["resnet18", "onednn"]["measured"] == []


def test_published_accuracies_travel_with_the_recipe(tmp_path: Path) -> None:
    recipes = {
        each["model"]: each for each in json.loads(make_inventory(tmp_path).to_json())["recipes"]
    }
    assert recipes["resnet18"]["published"]["IMAGENET1K_V1"] == {
        "float32_top1": 69.758,
        "int8_top1": 69.494,
        "int8_engine": "fbgemm",
        "method": "PTQ",
    }
    assert recipes["vgg11"]["published"] == {}


def test_without_trained_weights_every_model_is_shown_in_full(tmp_path: Path) -> None:
    text = "\n".join(lines(inventory_view(make_inventory(tmp_path)), 100))
    assert text.count("not shipped") == 2


def test_a_broken_sidecar_does_not_hide_the_weights(tmp_path: Path) -> None:
    (tmp_path / "resnet18.safetensors").write_bytes(b"")
    (tmp_path / "resnet18.json").write_text("[1", "utf-8")
    assert read_weights(tmp_path, "resnet18").shipped
    (tmp_path / "resnet18.json").write_text("[1]", "utf-8")
    assert read_weights(tmp_path, "resnet18").float32_top1 is None
