"""The real command line on real weights and photographs, and on everything that goes wrong."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest
import torch
from PIL import Image

import ptqbench
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.cli import main
from ptqbench.data.fixture.scenes import render
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.gates import gates_in_order
from ptqbench.reporting.json_report import schema

if TYPE_CHECKING:
    from conftest import UserCase

AVAILABLE = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]
ANY = AVAILABLE[0]
EASY = {"accuracy": 0.1, "agreement": 0.5, "size_ratio": 1.5}

pytestmark = pytest.mark.usefixtures("torch_settings")

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this repository's settings nor those of the machine that tests it."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(tmp_path)


def read(path: Path) -> dict[str, object]:
    content = json.loads(path.read_text("utf-8"))
    jsonschema.Draft202012Validator(schema()).validate(content)
    return content


# A user's case, from float32 to a verdict


@pytest.mark.slow
def test_a_wildcard_of_backends_ends_with_what_to_ship(
    user_case: UserCase, tmp_path: Path, capsys: Captured
) -> None:
    path, pattern = tmp_path / "result.json", f"{AVAILABLE[0]}*"
    argv = user_case.argv("--backend", pattern, "--json", str(path), "--no-strict")
    assert main(argv) in (0, 1)
    (note,) = [note for note in read(path)["notes"] if "recommend" in note]
    assert note.startswith(
        (f"{user_case.model}: Ship int8 in ", f"{user_case.model}: Keep float32")
    )
    assert f"`ptqbench recommend {user_case.model}` writes that file." in note
    assert "writes that file" in " ".join(capsys.readouterr().out.split())


def test_all_gates_pass(
    user_case: UserCase, thresholds: Callable[..., object], tmp_path: Path, capsys: Captured
) -> None:
    thresholds(user_case.model, **EASY, speedup={instruction_set(): 0.01})
    backend = next(name for name in AVAILABLE if instruction_set() in BACKENDS.get(name).targets)
    path = tmp_path / "result.json"
    argv = user_case.argv("--backend", backend, "--json", str(path), "--strict", "--timings")
    assert main([*argv, "--baseline", "runtime"]) == 0
    content = read(path)
    (case,) = content["cases"]
    assert content["verdict"] == case["verdict"] == "pass"
    assert (case["model"], case["backend"]) == (user_case.model, backend)
    assert (case["weights"], case["data"]) == (str(user_case.weights), str(user_case.data))
    assert [gate["name"] for gate in case["gates"]] == [gate.name for gate in gates_in_order()]
    assert None not in case["metrics"].values()
    assert case["facts"]["evaluation_images"] == 96
    seconds = sum(phase["seconds"] for phase in content["phases"])
    assert 0 < seconds <= content["wall_seconds"]
    out, err = capsys.readouterr()
    assert "1 case: ✓ 1 pass" in out
    assert "forward passes" in out
    assert err.splitlines()[-1] == f"ptqbench: {user_case.model} on {backend}: pass"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_and_an_unverified_gate(
    user_case: UserCase,
    thresholds: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Captured,
) -> None:
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none", ANY])
    missing = next(name for name in BACKENDS.names() if name != ANY)
    thresholds(user_case.model, **{**EASY, "size_ratio": 100.0})
    path = tmp_path / "result.json"
    argv = user_case.argv("--backend", missing, "--backend", ANY, "--json", str(path), "--strict")
    assert main([*argv, "--baseline", "runtime"]) == 1
    absent, failed = read(path)["cases"]
    assert {gate["verdict"] for gate in absent["gates"]} == {"unverified"}
    assert all(f"no {missing} engine" in gate["detail"] for gate in absent["gates"])
    assert set(absent["metrics"].values()) == {None}
    verdicts = {gate["name"]: gate["verdict"] for gate in failed["gates"]}
    assert verdicts["size"] == "fail"
    assert verdicts["speedup"] == "unverified"  # no threshold for this CPU
    assert "fail" in capsys.readouterr().out


def test_a_missing_engine_fails_only_if_strict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"])
    path = tmp_path / "result.json"
    argv = ["run", "resnet18", "--backend", "qnnpack", "--json", str(path)]
    assert main(argv) == 0
    assert read(path)["verdict"] == "unverified"
    assert main([*argv, "--strict"]) == 3


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_predict(user_case: UserCase, tmp_path: Path, capsys: Captured, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(render(0, 2, 700, 700 % len(CLASSES))).resize((120, 90)).save(path)
    sources = ["--weights", str(user_case.weights), "--data", str(user_case.data)]
    assert main(["predict", str(path), "--model", user_case.model, "--backend", ANY, *sources]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert sum(out.count(name) for name in CLASSES) >= 5
    assert path.name in out


# Bad input: exit code 2, one sentence, no traceback


def refused(argv: list[str], capsys: Captured) -> str:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *steps, error = err.splitlines()
    assert error.startswith("ptqbench: error: ")
    assert not any("error" in step for step in steps)
    assert "Traceback" not in err
    return error


def test_unknown_names(capsys: Captured) -> None:
    error = refused(["run", "resnet81"], capsys)
    assert "Unknown model 'resnet81'. Did you mean resnet18" in error
    error = refused(["run", "resnet18", "--backend", "fbgem"], capsys)
    assert "Unknown backend 'fbgem'. Did you mean fbgemm" in error


def test_weights_of_another_architecture(user_case: UserCase, capsys: Captured) -> None:
    error = refused(["run", "resnet18", "--weights", str(user_case.weights)], capsys)
    assert "squeezenet1_1" in error  # the model that they are for
    assert "conv1.weight" in error or "classifier.1" in error


def test_weights_with_other_shapes(user_case: UserCase, tmp_path: Path, capsys: Captured) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(user_case.weights)
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    path = tmp_path / "grey.safetensors"
    save_file(state, path)
    error = refused(["run", user_case.model, "--weights", str(path)], capsys)
    assert "features.0.weight" in error
    assert "64×1×3×3" in error and "64×3×3×3" in error


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_is_not_plain_tensors(tmp_path: Path, capsys: Captured, zipped: bool) -> None:
    trap, path = tmp_path / "trap", tmp_path / "weights.pt"
    content = {"conv1.weight": Malicious(trap)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    error = refused(["run", "resnet18", "--weights", str(path)], capsys)
    assert str(path) in error
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n cut short"])
def test_an_unreadable_picture(tmp_path: Path, capsys: Captured, content: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    assert str(path) in refused(["predict", str(path), "--model", "resnet18"], capsys)


def test_a_cache_directory_that_cannot_be_written(
    user_case: UserCase, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTQBENCH_CACHE", "to be restored")
    (tmp_path / "file").write_text("in the way")
    weights = ["--weights", str(user_case.weights)]
    cache = ["--cache-dir", str(tmp_path / "file" / "cache")]
    error = refused(["run", user_case.model, "--backend", ANY, *weights, *cache], capsys)
    assert str(tmp_path / "file") in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--resize", "32", "--crop", "64"], "crop=64 is larger than resize=32"),
        (["--classes", "cat,dog"], "2 class names"),
    ],
)
def test_settings_that_do_not_fit(
    user_case: UserCase, capsys: Captured, options: list[str], words: str
) -> None:
    assert words in refused(user_case.argv("--backend", ANY, *options), capsys)


def test_folders_that_are_not_the_classes(
    user_case: UserCase, tmp_path: Path, capsys: Captured
) -> None:
    for name in ("spaceship", "submarine"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / name / "1.png")
    argv = ["run", user_case.model, "--weights", str(user_case.weights), "--data", str(tmp_path)]
    error = refused([*argv, "--backend", ANY], capsys)
    assert "spaceship" in error
    assert "--classes" in error


@pytest.mark.parametrize(
    "error", [RuntimeError("no space left\nframe #0"), OSError(28, "No space left")]
)
def test_a_full_disk(
    user_case: UserCase,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    monkeypatch.setattr(Path, "write_bytes", half_written(error))
    folder = tmp_path / "kept"
    argv = user_case.argv("--backend", ANY, "--artifacts", str(folder), "--quiet")
    message = refused(argv, capsys)
    assert "cannot be written" in message
    assert "space left" in message
    assert list(folder.iterdir()) == []


def test_ctrl_c(
    user_case: UserCase, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", half_written(KeyboardInterrupt()))
    folder, path = tmp_path / "kept", tmp_path / "result.json"
    argv = user_case.argv("--backend", ANY, "--artifacts", str(folder), "--json", str(path))
    assert main(argv) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [*tmp_path.rglob("*")] == [folder]


def half_written(error: BaseException) -> Callable[..., None]:
    def write(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise error

    return write


# In a process of its own


def fresh(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ptqbench", *argv],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(ptqbench.__file__).parents[1])},
    )


@pytest.mark.slow
def test_mistakes_in_a_fresh_process(user_case: UserCase) -> None:
    wrong = fresh("run", "resnet18", "--weights", str(user_case.weights))
    for process, words in (
        (fresh("run", "resnet81"), "Did you mean resnet18"),
        (wrong, "squeezenet1_1"),
    ):
        assert process.returncode == 2
        assert process.stdout == ""
        # Nothing but steps and the sentence: torch's announcements are kept off the screen too.
        *steps, error = process.stderr.splitlines()
        assert error.startswith("ptqbench: error: ")
        assert set(steps) <= {"ptqbench: resnet18: load weights and images"}
        assert words in error


@pytest.mark.slow
def test_a_run_in_a_fresh_process(user_case: UserCase, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    argv = user_case.argv("--backend", ANY, "--json", str(path), "--baseline", "runtime")
    process = fresh(*argv)
    report = read(path)
    assert process.returncode == (1 if report["verdict"] == "fail" else 0)
    before = ("load weights and images", "read the layers")
    steps = ("quantize", "calibrate", "load both models", "accuracy", "noise floor", "speed")
    inside = ("simulate the kernels", "look inside the file")
    assert process.stderr.splitlines() == [
        *(f"ptqbench: {user_case.model}: {step}" for step in before),
        *(
            f"ptqbench: {user_case.model} on {ANY}: {step}"
            for step in (*steps, *inside, report["verdict"])
        ),
    ]
    assert user_case.model in process.stdout
