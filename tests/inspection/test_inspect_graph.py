"""``ptqbench inspect`` on files that only their runtime can read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_artifacts import SMALL, build, small

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.cli import main

pytestmark = pytest.mark.usefixtures("torch_settings")


def inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["inspect", str(path), "--json"])
    return code, json.loads(capsys.readouterr().out)


def kinds(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["kind"]: finding for finding in content["findings"]}


def test_a_sound_file_has_nothing_to_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build(small(), tmp_path / "a.pt")
    code, content = inspect(built.artifact.path, capsys)
    assert (code, content["format"], content["findings"]) == (0, "torch", [])
    layers = len(built.backend.layers(built.artifact.path).int8_layers)
    assert content["precisions"] == {"int8": {"layers": layers, "share_of_multiply_adds": None}}
    assert content["size_bytes"] == built.artifact.path.stat().st_size
    assert main(["inspect", str(built.artifact.path)]) == 0
    screen = capsys.readouterr().out
    assert "read by torch" in screen and "nothing was found that is wrong" in screen


def test_full_range_weights_are_named_for_engines_that_add_in_16_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = replace(SMALL, spare_bit="none")
    built = build(small(), tmp_path / "a.pt", full)
    code, content = inspect(built.artifact.path, capsys)
    assert code == 0 and kinds(content)["saturating weights"]["places"]
    if BACKENDS.get("qnnpack").availability() is None:
        built = build(small(), tmp_path / "b.pt", full, backend="qnnpack")
        assert "saturating weights" not in kinds(inspect(built.artifact.path, capsys)[1])


def test_what_is_wrong_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = build(small(), tmp_path / "a.pt", calibrate=False).artifact.path
    code, content = inspect(path, capsys)
    assert code == 1 and kinds(content)["not calibrated"]["severity"] == "error"
    plain = replace(SMALL, observer="minmax")  # a histogram cannot be saved as TorchScript
    path = build(small(), tmp_path / "b.pt", plain, convert=False).artifact.path
    code, content = inspect(path, capsys)
    assert code == 1 and kinds(content)["observers"]["places"]
    assert "nothing is int8" in kinds(content)


def test_what_cannot_be_read_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = build(small(), tmp_path / "a.pt").artifact.path
    short = tmp_path / "short.pt"
    short.write_bytes(whole.read_bytes()[:2000])
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    for path in (short, tmp_path / "state.pt", tmp_path / "missing.pt"):
        assert main(["inspect", str(path)]) == 2
        assert str(path) in capsys.readouterr().err


def test_torch_prints_no_warning_of_its_own(tmp_path: Path) -> None:
    path = build(small(), tmp_path / "a.pt").artifact.path
    command = [sys.executable, "-m", "ptqbench", "inspect", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
