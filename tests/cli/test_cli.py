"""The command line: what it passes on, what it says to mistakes, and its exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest
from helpers.reports import MACHINE

import ptqbench.evaluation
from ptqbench.cli import main
from ptqbench.cli.exit_codes import EXIT_CODES, INTERRUPTED
from ptqbench.core.package_data import SHIPPED
from ptqbench.core.process import Terminated
from ptqbench.errors import UnknownNameError
from ptqbench.evaluation import inventory
from ptqbench.evaluation.result import CaseResult, Prediction, Report
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import Verdict
from ptqbench.recipes import RECIPES
from ptqbench.reporting import progress_display as progress
from ptqbench.reporting.json_report import schema
from ptqbench.settings.requests import CaseRequest
from ptqbench.settings.run_settings import RunSettings


@dataclass
class Recorder:
    """Stands in for `ptqbench.evaluation`: records its calls, returns what the test says."""

    verdict: Verdict = Verdict.PASS
    error: BaseException | None = None
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def run_requests(self, requests, progress, phases, fresh, results, conclude) -> Report:  # type: ignore[no-untyped-def]
        assert results is None
        assert (conclude is not None) == any("*" in name for r in requests for name in r.backends)
        self.calls.append(tuple(requests))
        if self.error is not None:
            raise self.error
        progress("float32 predictions", 1, 2)
        with phases.measure("float32 predictions", forward=True):
            time.sleep(0.001)
        gate = GateResult("accuracy", self.verdict, 0.99, 0.99, (0.98, 1.0), 2000, "A sentence.")
        case = CaseResult("resnet18", "fixture", "x86", "fixture", "ab", {}, (gate,))
        return Report(MACHINE, (case,))

    def predict(self, image, request, progress) -> Prediction:  # type: ignore[no-untyped-def]
        self.calls.append((image, request))
        if self.error is not None:
            raise self.error
        assert callable(progress)
        return Prediction(request.model, "fixture", "x86", (("cat", 0.9),), (("cat", 0.8),))


DEFAULTS = RunSettings(weights="fixture")
"""The settings of a run without options."""


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this repository's settings nor those of the machine that tests it."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    stand_in = Recorder()
    for name, function in (("run", "run_requests"), ("predict", "predict")):
        module = ModuleType(f"ptqbench.evaluation.{name}")
        setattr(module, function, getattr(stand_in, function))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(ptqbench.evaluation, name, module, raising=False)
    return stand_in


Screen = Callable[[], tuple[str, str]]


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str]) -> Screen:
    return lambda: tuple(capsys.readouterr())  # type: ignore[return-value]


def refused(*argv: str) -> int:
    """The exit code, whether argparse leaves or `main` returns."""
    try:
        return main(argv)
    except SystemExit as left:
        assert isinstance(left.code, int)
        return left.code


# What is passed on


def test_run_passes_the_defaults_on(recorder: Recorder, screen: Screen) -> None:
    assert main(["run"]) == 0
    (requests,) = recorder.calls
    assert [each.model for each in requests] == list(SHIPPED)
    assert requests[0].backends == (RECIPES.get(requests[0].model).backend,)
    assert requests[0].settings == DEFAULTS
    out, err = screen()
    assert "1 case: ✓ 1 pass" in out
    assert err == "ptqbench: float32 predictions\n"


def test_run_passes_every_option_on(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTQBENCH_CACHE", "to be restored")
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"")
    names = tmp_path / "names.txt"
    names.write_text("cat\n\n dog \n", "utf-8")
    options = f"""--backend x86 --backend onednn --backend x86 --weights {weights}
        --data {tmp_path} --resize 72 --crop 64 --mean 0.5,0.4,0.3 --std 0.2,0.2,0.2
        --interpolation bicubic --classes {names} --input-size 96 --batch-size 4 --threads 2
        --seed 7 --cache-dir {tmp_path}/cache --artifacts kept --threshold accuracy=0.98
        --threshold speedup.avx2=1.5 --max-bytes 3MiB --limit 40 --broken-share 0.2 --workers 3"""
    assert main(["run", "resnet18", "resnet18", *options.split()]) == 0
    overrides = {
        "resize": 72,
        "crop": 64,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.2),
        "interpolation": "bicubic",
        "classes": ("cat", "dog"),
    }
    expected = {
        "data": str(tmp_path),
        "limit": 40,
        "broken_share": 0.2,
        "workers": 3,
        "weights": str(weights),
        "overrides": overrides,
        "input_size": 96,
        "batch_size": 4,
        "threads": 2,
        "seed": 7,
        "artifacts": "kept",
        "thresholds": {"accuracy": 0.98, "speedup": {"avx2": 1.5}, "max_bytes": 3 * 2**20},
    }
    assert [
        (each.model, each.backends, each.origin, each.settings) for (each,) in recorder.calls
    ] == [("resnet18", ("x86", "onednn"), "--backend", RunSettings(**expected))]
    assert os.environ["PTQBENCH_CACHE"] == f"{tmp_path}/cache"


PROJECT = """
models = ["squeezenet1_1", "mobilenet_v2", "mobilenet_v3_l*"]
seed = 3
threads = 2
report.json = "from-settings.json"
report.markdown = "from-settings.md"
thresholds.accuracy = 0.98

[model."mobilenet_*"]
backends = ["x86", "onednn"]
seed = 4
thresholds.accuracy = 0.97

[model.mobilenet_v2]
weights = "mine.safetensors"
"""


def test_run_reads_the_settings_and_options_win(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "ptqbench.toml").write_text(PROJECT, "utf-8")
    (tmp_path / "mine.safetensors").touch()
    assert main(["run"]) == 0
    (requests,) = recorder.calls
    by_model = {each.model: each for each in requests}
    assert list(by_model) == ["mobilenet_v2", "mobilenet_v3_large", "squeezenet1_1"]
    assert by_model["mobilenet_v2"].backends == ("x86", "onednn")
    assert by_model["squeezenet1_1"].backends == (RECIPES.get("squeezenet1_1").backend,)
    assert by_model["mobilenet_v2"].settings.weights == str(tmp_path / "mine.safetensors")
    assert by_model["mobilenet_v3_large"].settings.weights == "fixture"
    assert [each.settings.seed for each in requests] == [4, 4, 3]
    accuracy = [each.settings.thresholds for each in requests]
    assert accuracy == [{"accuracy": 0.97}, {"accuracy": 0.97}, {"accuracy": 0.98}]
    assert json.loads((tmp_path / "from-settings.json").read_text("utf-8"))["cases"]
    assert "resnet18" in (tmp_path / "from-settings.md").read_text("utf-8")

    recorder.calls.clear()
    argv = "run mobilenet_v2 --seed 5 --backend fbgemm --threshold accuracy=0.5 --json own.json"
    assert main(argv.split()) == 0
    ((request,),) = recorder.calls
    assert (request.backends, request.settings.seed) == (("fbgemm",), 5)
    assert (request.settings.thresholds, request.settings.threads) == ({"accuracy": 0.5}, 2)
    assert (tmp_path / "own.json").exists()


def test_the_profile_ci_is_strict_unless_told_otherwise(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.verdict = Verdict.UNVERIFIED
    monkeypatch.setenv("CI", "true")
    assert main(["run"]) == 3
    assert main(["run", "--no-strict"]) == 0
    (tmp_path / "ptqbench.toml").write_text("profile = 'local'\n", "utf-8")
    assert main(["run"]) == 0


def test_settings_that_are_wrong_are_said_before_anything_is_measured(
    recorder: Recorder, screen: Screen, tmp_path: Path
) -> None:
    (tmp_path / "ptqbench.toml").write_text("sede = 1\n", "utf-8")
    assert main(["run"]) == 2
    assert "Unknown setting 'sede' in ptqbench.toml. Did you mean seed" in screen()[1]
    assert recorder.calls == []


def test_show_config_names_who_set_what(screen: Screen, tmp_path: Path) -> None:
    (tmp_path / "ptqbench.toml").write_text(PROJECT, "utf-8")
    (tmp_path / "mine.safetensors").touch()
    assert main(["show-config", "mobilenet_v3_large"]) == 0
    lines = {line.split()[0]: line.split() for line in screen()[0].splitlines() if line.strip()}
    assert lines["seed"][1:] == ["4", "ptqbench.toml", '[model."mobilenet_*"]']
    assert lines["threads"][1:] == ["2", "ptqbench.toml"]
    assert lines["models"][1:] == ["mobilenet_v3_large", "command", "line"]
    assert lines["data"][1:] == ["fixture", "default"]
    assert lines["thresholds.size_ratio"][-1] == "recipe"


def test_predict_passes_its_options_on(recorder: Recorder, screen: Screen, tmp_path: Path) -> None:
    image = tmp_path / "photo.jpg"
    image.write_bytes(b"")
    assert main(["predict", str(image), "--model", "resnet18", "--classes", "cat,dog"]) == 0
    ((path, request),) = recorder.calls
    assert path == image
    assert isinstance(request, CaseRequest)
    assert (request.model, request.backends) == ("resnet18", (RECIPES.get("resnet18").backend,))
    assert request.settings == replace(DEFAULTS, overrides={"classes": ("cat", "dog")})
    assert "Both say cat." in screen()[0]


def test_predict_takes_the_backend_of_the_option_the_settings_or_the_recipe(
    recorder: Recorder, screen: Screen, tmp_path: Path
) -> None:
    image = tmp_path / "photo.jpg"
    image.write_bytes(b"")
    Path("ptqbench.toml").write_text(
        'backends = ["x86"]\nmodel.vgg11.backends = ["fbgemm", "x86"]\n', "utf-8"
    )
    argv = ["predict", str(image), "--model"]
    assert main([*argv, "resnet18", "--backend", "qnnpack"]) == 0
    assert main([*argv, "resnet18"]) == 0
    assert main([*argv, "vgg11"]) == 0
    requests = [request for _, request in recorder.calls]
    assert all(isinstance(request, CaseRequest) for request in requests)
    assert [o.backends for o in requests] == [("qnnpack",), ("x86",), ("fbgemm", "x86")]  # type: ignore[attr-defined]
    assert requests[0].origin == "--backend"  # type: ignore[attr-defined]
    assert "ptqbench.toml" in requests[1].origin  # type: ignore[attr-defined]
    assert main([*argv, "resnet*"]) == 2
    assert "--model takes one name, but resnet* matches several" in screen()[1]


# Exit codes and output


@pytest.mark.parametrize(
    ("verdict", "code", "strict"),
    [
        (Verdict.PASS, 0, 0),
        (Verdict.FAIL, 1, 1),
        (Verdict.INCONCLUSIVE, 0, 3),
        (Verdict.UNVERIFIED, 0, 3),
    ],
)
def test_exit_codes(recorder: Recorder, verdict: Verdict, code: int, strict: int) -> None:
    recorder.verdict = verdict
    assert main(["run"]) == code
    assert main(["run", "--strict"]) == strict


def test_the_help_names_every_exit_code(screen: Screen) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    _, _, after = screen()[0].partition("exit codes:\n")
    shown = " ".join(after.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in shown
    assert EXIT_CODES.keys() == {0, 1, 2, 3, INTERRUPTED, Terminated(signal.SIGTERM).exit_code}


def test_json_goes_to_a_file_and_the_report_to_the_terminal(
    recorder: Recorder, screen: Screen, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    assert main(["run", "--json", str(path)]) == 0
    content = json.loads(path.read_text("utf-8"))
    jsonschema.Draft202012Validator(schema()).validate(content)
    assert [phase["name"] for phase in content["phases"]] == [
        "start and imports",
        "float32 predictions",
    ]
    assert content["wall_seconds"] >= sum(phase["seconds"] for phase in content["phases"])
    assert "1 case" in screen()[0]


def test_json_on_standard_output_is_nothing_but_json(recorder: Recorder, screen: Screen) -> None:
    assert main(["run", "--json", "-", "--timings"]) == 0
    out, err = screen()
    assert json.loads(out)["schema_version"] == 2
    assert "1 case" in err
    assert "its forward passes" in err


def test_timings_are_shown_on_request(recorder: Recorder, screen: Screen) -> None:
    main(["run"])
    assert "forward passes" not in screen()[0]
    main(["run", "--timings"])
    assert "The whole process took" in screen()[0]


def test_in_a_log_progress_is_a_line_for_each_step(recorder: Recorder, screen: Screen) -> None:
    assert main(["run"]) == 0
    assert screen()[1] == "ptqbench: float32 predictions\n"
    assert main(["run", "--json", "-"]) == 0
    out, err = screen()
    assert json.loads(out)["verdict"] == "pass"
    assert err.startswith("ptqbench: float32 predictions\n")
    assert main(["run", "--quiet"]) == 0
    assert screen()[1] == ""


def test_lines_about_progress_are_few(monkeypatch: pytest.MonkeyPatch, screen: Screen) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.progress_display() as update:
        for done in range(0, 50_000, 50):
            update("resnet18 on x86: accuracy", done, 50_000)
            clock[0] += 0.25
        update("resnet18 on x86: speed", 1, 20)
        update("resnet18 on x86: speed", 2, 20)
        update("resnet18 on x86: pass", 1, 1)
    assert screen()[1].splitlines() == [
        "ptqbench: resnet18 on x86: accuracy",
        "ptqbench: resnet18 on x86: accuracy, 12,000 of 50,000",
        "ptqbench: resnet18 on x86: accuracy, 24,000 of 50,000",
        "ptqbench: resnet18 on x86: accuracy, 36,000 of 50,000",
        "ptqbench: resnet18 on x86: accuracy, 48,000 of 50,000",
        "ptqbench: resnet18 on x86: speed",
        "ptqbench: resnet18 on x86: pass",
    ]


def test_a_log_that_is_gone_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            texts.append(text)
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    with progress.progress_display() as update:
        update("accuracy", 1, 2)
        update("speed", 1, 2)
    assert texts == ["ptqbench: accuracy", "ptqbench: speed"]


def test_progress_leaves_nothing_and_starts_no_thread(
    monkeypatch: pytest.MonkeyPatch, screen: Screen
) -> None:
    import threading

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    before = threading.active_count()
    with progress.progress_display() as update:
        update("calibrating [x]", 0, 0)
        update("calibrating [x]", 3, 8)
        update("timing", 1, 4)
        assert threading.active_count() == before
    err = screen()[1]
    assert "calibrating [x]" in err
    assert "timing" in err


# Mistakes


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("rum", "Did you mean run?"),
        ("run --bakend x86", "Did you mean --backend?"),
        ("run --batch-size 0", "--batch-size: expected a whole number of at least 1"),
        ("run --threads two", "--threads: expected a whole number of at least 1, but got 'two'"),
        ("run --seed -1", "--seed"),
        ("run --limit 0", "--limit: expected a whole number of at least 1"),
        ("run --workers 0", "--workers: expected a whole number of at least 1"),
        ("run --broken-share 2", "--broken-share: expected a share between 0 and 1"),
        ("run --broken-share nan", "--broken-share: expected a share between 0 and 1"),
        ("predict x.jpg --model resnet18 --limit 5", "unrecognized arguments: --limit"),
        ("run --mean 1,2", "expected three finite numbers like 0.485,0.456,0.406"),
        ("run --mean nan,0,0", "expected three finite numbers"),
        ("run --interpolation bilinaer", "or lanczos (did you mean bilinear?)"),
        ("run --std 1,0,1", "expected three finite numbers above 0"),
        ("run --classes cat,cat", "expected each class name once (cat is repeated)"),
        ("run --classes ,", "expected at least one class name"),
        ("run --classes missing.txt", "there is no file 'missing.txt'"),
        ("run --weights missing.pt", "There are no weights at missing.pt"),
        ("run --data missing", "There are no images at missing"),
        ("run --json missing/result.json", "there is no folder missing"),
        ("run --json .", "it is a folder"),
        ("predict missing.jpg --model resnet18", "Cannot read the image missing.jpg"),
        ("predict . --model resnet18", "it is a folder"),
        ("predict x.jpg", "--model"),
        ("run --back x86", "unrecognized arguments: --back"),
        ("", "COMMAND"),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(
    recorder: Recorder,
    screen: Screen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(*argv.split()) == 2
    out, err = screen()
    assert out == ""
    assert words in err
    assert err.splitlines()[-1].startswith("ptqbench: error: ")
    assert "Traceback" not in err
    assert recorder.calls == []


@pytest.mark.parametrize("command", ["run", "predict"])
def test_what_the_user_did_wrong_is_one_sentence(
    recorder: Recorder, screen: Screen, tmp_path: Path, command: str
) -> None:
    sentence = "Unknown model 'resnet81'. Did you mean resnet18 or resnet152 or resnet101?"
    recorder.error = UnknownNameError(sentence)
    image = tmp_path / "photo.jpg"
    image.write_bytes(b"")
    argv = ["run"] if command == "run" else ["predict", str(image), "--model", "resnet18"]
    assert main(argv) == 2
    assert screen() == ("", f"ptqbench: error: {sentence}\n")


def test_a_full_disk_is_a_sentence_but_a_defect_is_not_hidden(
    recorder: Recorder, screen: Screen
) -> None:
    recorder.error = OSError(28, "No space left on device", "cache/shard-0.npy")
    assert main(["run"]) == 2
    assert "error: No space left on device: cache/shard-0.npy." in screen()[1]
    recorder.error = OSError(22, "Invalid argument")
    with pytest.raises(OSError, match="Invalid argument"):
        main(["run"])


def test_ctrl_c_leaves_no_result(recorder: Recorder, screen: Screen, tmp_path: Path) -> None:
    recorder.error = KeyboardInterrupt()
    assert main(["run", "--json", str(tmp_path / "result.json")]) == 130
    assert "interrupted" in screen()[1]
    assert list(tmp_path.iterdir()) == []


# list


def test_list(monkeypatch: pytest.MonkeyPatch, screen: Screen) -> None:
    entry = inventory.ModelEntry("resnet18", (3, 224, 224), inventory.WeightsEntry(True, 0.9))
    missing = inventory.BackendEntry("qnnpack", "qnnpack", "This build of torch lacks it.")
    everything = inventory.Inventory("avx2", (entry,), (), (missing,))
    monkeypatch.setattr(inventory, "inventory", lambda: everything)
    assert main(["list"]) == 0
    assert "not available: This build of torch lacks it." in screen()[0]
    assert main(["list", "--json"]) == 0
    assert json.loads(screen()[0])["models"][0]["weights"]["shipped"] is True
