"""``ptqbench gate``: files that somebody else made, and what is no such file at all."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import torch
from helpers.foreign_artifacts import AVAILABLE, Strangers, needs
from safetensors.torch import save_file
from torch import nn

import ptqbench
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.torch_engines.archive_check import check_torchscript
from ptqbench.cli import main
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.gates import gates_in_order
from ptqbench.reporting.json_report import schema

if TYPE_CHECKING:
    from conftest import UserCase, Workshop

pytestmark = pytest.mark.usefixtures("torch_settings")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this repository's settings nor those of the machine that tests it."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def strangers(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Strangers:
    return Strangers(workshop, tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def weights(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """resnet18's weights as a user has them."""
    path = tmp_path_factory.mktemp("weights") / "float.safetensors"
    save_file({k: v.contiguous() for k, v in workshop.weights("resnet18").state.items()}, path)
    settings = {"resize": 64, "crop": 64, "classes": list(CLASSES)}
    Path(f"{path}.json").write_text(json.dumps(settings), "utf-8")
    return path


@pytest.fixture
def gate(user_case: UserCase, weights: Path) -> Callable[..., int]:
    """The command line on resnet18 and photographs, small and fast."""

    def run(artifact: Path, *more: str) -> int:
        argv = ["gate", "--model", "resnet18", "--weights", str(weights)]
        argv += ["--artifact", str(artifact), "--data", str(user_case.data)]
        return main([*argv, "--input-size", "64", "--threads", "1", *more])

    return run


def results(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    content = json.loads(path.read_text("utf-8"))
    jsonschema.Draft202012Validator(schema()).validate(content)
    (case,) = content["cases"]
    return case, {gate["name"]: gate for gate in case["gates"]}


@pytest.mark.slow
@needs("fbgemm")
def test_a_sound_file_passes_every_gate(
    strangers: Strangers,
    gate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    artifact = strangers.save(strangers.eager("fbgemm"), "sound")
    loose = ["accuracy=0.85", "agreement=0.85", f"speedup.{instruction_set()}=0.01"]
    if instruction_set() not in BACKENDS.get("fbgemm").targets:
        pytest.skip("its speed says nothing here, which is unverified")
    thresholds = [word for text in loose for word in ("--threshold", text)]
    out = tmp_path / "result.json"
    code = gate(artifact, "--backend", "fbgemm", "--json", str(out), "--strict", *thresholds)
    case, gates = results(out)
    assert {name: gate["verdict"] for name, gate in gates.items()} == dict.fromkeys(
        [gate.name for gate in gates_in_order()], "pass"
    ), [gate["detail"] for gate in gates.values()]
    assert code == 0
    facts = case["facts"]
    assert facts["made_by"] == "elsewhere"
    assert facts["artifact"] == str(artifact)
    assert facts["recorded_engine"] is None and facts["calibration_images"] is None
    assert case["recipe"] == ""
    assert gates["conversion"]["observed"] == gates["conversion"]["threshold"] == 21
    assert "does not record the engine" in gates["fidelity"]["detail"]
    phases = json.loads(out.read_text("utf-8"))
    assert 0 < sum(p["seconds"] for p in phases["phases"]) <= phases["wall_seconds"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "sound.pt is a foreign artifact, judged under fbgemm." in shown


@pytest.mark.slow
def test_a_float32_file_is_judged_and_not_refused(
    strangers: Strangers, gate: Callable[..., int], tmp_path: Path
) -> None:
    artifact = strangers.save(strangers.workshop.model("resnet18"), "float32")
    out = tmp_path / "result.json"
    assert gate(artifact, "--backend", AVAILABLE[0], "--json", str(out)) == 1
    _, gates = results(out)
    assert gates["conversion"]["verdict"] == "fail"
    assert gates["conversion"]["detail"].startswith("Nothing was quantized: 0 of 21")
    assert gates["size"]["verdict"] == "fail"
    for name in ("fusion", "saturation"):
        assert gates[name]["verdict"] == "unverified"
        assert "no int8 layer" in gates[name]["detail"]


@pytest.mark.slow
def test_the_file_of_another_architecture(
    strangers: Strangers, gate: Callable[..., int], tmp_path: Path
) -> None:
    engine = AVAILABLE[0]
    artifact = strangers.save(strangers.fx(engine), "other")
    out = tmp_path / "result.json"
    assert gate(artifact, "--backend", engine, "--json", str(out)) == 1
    _, gates = results(out)
    assert gates["conversion"]["verdict"] == gates["fusion"]["verdict"] == "fail"
    assert "weights of no layer of the float model: " in gates["conversion"]["detail"]
    assert gates["agreement"]["observed"] < 0.95


@pytest.mark.slow
@needs("fbgemm", "qnnpack")
def test_an_engine_that_the_file_itself_contradicts(
    workshop: Workshop, gate: Callable[..., int], tmp_path: Path
) -> None:
    built = workshop.built("resnet18", "fbgemm").artifact
    out = tmp_path / "result.json"
    assert gate(built.path, "--backend", "qnnpack", "--json", str(out)) == 1
    case, gates = results(out)
    assert gates["fidelity"]["verdict"] == "fail"
    assert gates["fidelity"]["detail"].startswith(
        "It was measured under qnnpack, but the file records fbgemm"
    )
    # What ptqbench remembers of the build counts all the same.
    assert case["facts"]["made_by"] == "ptqbench"
    assert case["recipe"] == built.info.recipe_hash
    assert "every observer saw data" in gates["conversion"]["detail"]


def test_a_missing_engine_is_unverified(
    strangers: Strangers,
    gate: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = strangers.save(strangers.eager(AVAILABLE[0]), "for-nothing")
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"])
    out = tmp_path / "result.json"
    assert gate(path, "--backend", "qnnpack", "--strict", "--json", str(out)) == 3
    case, gates = results(out)
    assert {gate["verdict"] for gate in gates.values()} == {"unverified"}
    assert case["facts"]["made_by"] == "elsewhere"


# What is no TorchScript at all


class Trap:
    """A pickle that would write a file if anybody opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def exported(path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 2, 2),)), path)


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(64, 64), torch.zeros(1, 64)), str(path))


def truncated(path: Path) -> None:
    scripted(path)
    path.write_bytes(path.read_bytes()[:-2000])


def damaged(path: Path) -> None:
    """One bit of a weight is another: torch.jit.load says nothing."""
    scripted(path)
    with zipfile.ZipFile(path) as archive:
        weight = max(archive.infolist(), key=lambda each: each.file_size)
    content = bytearray(path.read_bytes())
    content[weight.header_offset + 200 + weight.file_size // 2] ^= 1
    path.write_bytes(content)
    torch.jit.load(str(path))


KINDS = {
    "missing": (lambda path: None, "it does not exist"),
    "folder": (lambda path: path.mkdir(), "it is a folder"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "text": (lambda path: path.write_text("int8\n", "utf-8"), "it is not a TorchScript archive"),
    "weights": (lambda path: save_file({"a": torch.zeros(2)}, path), "it is a safetensors file"),
    "state": (lambda path: torch.save({"a": torch.zeros(2)}, path), "written by torch.save"),
    "module": (lambda path: torch.save(nn.ReLU(), path), "not opened because that could run"),
    "pickle": (
        lambda path: path.write_bytes(pickle.dumps(Trap(path.with_name("sprung")))),
        "not opened because that could run its code",
    ),
    "export": (exported, "it is a program of torch.export"),
    "truncated": (truncated, "it is damaged or not complete"),
    "damaged": (damaged, "it is damaged. Copy it again"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_kinds_are_named(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = KINDS[kind]
    path = tmp_path / "int8.pt"
    make(path)
    assert main(["gate", "--model", "resnet18", "--artifact", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    assert f"{path} cannot be loaded as TorchScript: " in err and words in err
    assert [each.name for each in tmp_path.iterdir()] == ([] if kind == "missing" else ["int8.pt"])


def test_a_sound_archive_is_accepted(tmp_path: Path) -> None:
    scripted(tmp_path / "sound.pt")
    check_torchscript(tmp_path / "sound.pt")


def test_mistakes_in_the_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strangers: Strangers
) -> None:
    engine = AVAILABLE[0]
    path = strangers.save(strangers.eager(engine), "for-mistakes")

    def refused(*argv: str) -> str:
        try:
            assert main(["gate", *argv]) == 2
        except SystemExit as left:
            assert left.code == 2
        return capsys.readouterr().err

    file = ("--artifact", str(path))
    assert "--artifact" in refused("--model", "resnet18")
    assert "--model" in refused(*file)
    assert "Did you mean resnet18" in refused("--model", "resnet81", *file)
    assert "Did you mean x86" in refused("--model", "resnet18", *file, "--backend", "x68")
    assert "takes one name" in refused("--model", "*net*", *file)
    assert "There are no weights at" in refused("--model", "resnet18", *file, "--weights", "no")
    assert "expected at least one name" in refused(
        "--model", "resnet18", *file, "--keep-float", ","
    )
    unknown = refused("--model", "resnet18", *file, "--keep-float", "layer9", "--backend", engine)
    assert "keep_float: 'layer9' is not, and does not contain, a convolution" in unknown


def test_a_file_is_judged_for_one_backend(
    strangers: Strangers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = strangers.save(strangers.eager(AVAILABLE[0]), "for-one")
    (tmp_path / "ptqbench.toml").write_text('backends = ["x86", "onednn"]\n', "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["gate", "--model", "resnet18", "--artifact", str(path)]) == 2
    err = capsys.readouterr().err
    assert "chooses x86, onednn, but a file is judged for one backend" in err


def test_no_torch_is_imported_to_refuse_a_file(tmp_path: Path) -> None:
    (tmp_path / "int8.pt").write_text("text", "utf-8")
    code = (
        "import sys; from ptqbench.cli import main\n"
        "assert main(['gate', '--model', 'resnet18', '--artifact', 'int8.pt']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(ptqbench.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
