"""``ptqbench inspect`` on files with planted findings, and against what is really executed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from helpers.onnx_strangers import exported, quantized
from helpers.qdq_files import Qdq

from ptqbench.backends.graph import IntegerWeights
from ptqbench.backends.integer_reference import leaves_int16
from ptqbench.cli import main
from ptqbench.inspection.weight_pairs import leave_16_bits

onnx = pytest.importorskip("onnx", reason="onnx is not installed (ptqbench[onnx])")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (ptqbench[onnx])")


def inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["inspect", str(path), "--json"])
    return code, json.loads(capsys.readouterr().out)


def findings(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["kind"]: finding for finding in content["findings"]}


def test_a_sound_file_has_nothing_to_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Qdq().write(tmp_path / "sound.onnx")
    code, content = inspect(path, capsys)
    assert code == 0 and content["findings"] == [] and content["inspection_version"] == 1
    assert content["precisions"] == {"int8": {"layers": 3, "share_of_multiply_adds": 1.0}}
    amounts = {layer["name"]: layer["multiply_adds"] for layer in content["layers"]}
    # Outputs of 8×8 and 6×6, for one image.
    assert amounts == {"stem": 64 * 8 * 27, "depthwise": 36 * 8 * 9, "fc": 5 * 8}
    assert content["size_bytes"] == path.stat().st_size
    assert main(["inspect", str(path)]) == 0
    assert "nothing was found that is wrong" in capsys.readouterr().out


PLANTED = [
    ("not calibrated", {"uncalibrated": True}, 1, None),
    ("broken scales", {"scale": np.nan}, 1, None),
    ("broken scales", {"scale": np.inf}, 1, None),
    ("broken scales", {"scale": 0.0}, 1, None),
    ("per-tensor depthwise", {"per_tensor": True}, 0, ["depthwise"]),
    ("saturating weights", {"limit": 65}, 0, ["stem", "fc"]),
    ("asymmetric weights", {"weight_zero": 5}, 0, ["stem", "depthwise", "fc"]),
    ("islands", {"hard_swish": True}, 0, ["swish"]),
    ("float layers", {"float_head": True}, 0, ["fc"]),
    ("float tail", {"softmax": True}, 0, ["logits"]),
]


@pytest.mark.parametrize(("kind", "options", "code", "places"), PLANTED)
def test_what_is_planted_is_the_only_finding(
    kind: str,
    options: dict[str, Any],
    code: int,
    places: list[str] | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = Qdq(**options).write(tmp_path / "planted.onnx")
    exit_code, content = inspect(path, capsys)
    assert exit_code == code
    assert list(findings(content)) == [kind]
    finding = findings(content)[kind]
    assert finding["remedy"] and (finding["severity"] == "error") == bool(code)
    if places is not None:
        assert finding["places"] == places


def test_files_that_cannot_be_read_end_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Qdq().write(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    other = tmp_path / "m.pt"
    other.write_text("PK")
    for file, sentence in (
        (path, "not complete"),
        (other, "not a TorchScript archive"),
        (tmp_path / "none.onnx", "does not exist"),
    ):
        assert main(["inspect", str(file)]) == 2
        assert sentence in capsys.readouterr().err


def test_it_takes_no_torch_and_less_than_two_seconds(tmp_path: Path) -> None:
    path = Qdq(limit=127, hard_swish=True).write(tmp_path / "m.onnx")
    program = (
        "import sys, time; from ptqbench.cli import main; "
        f"code = main(['inspect', {str(path)!r}]); "
        "print(code, 'torch' in sys.modules, time.process_time())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    code, torch_is_there, seconds = result.stdout.splitlines()[-1].split()
    assert (code, torch_is_there) == ("0", "False")
    assert float(seconds) < 2
    assert "! warning Full-range weights in 2 layers" in result.stdout


@pytest.mark.parametrize("pairing", ["patches", "groups"])
@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (6, 4, 1, 1), (6, 1, 3, 3), (5, 7), (8, 3, 3, 3)])
def test_pairs_are_those_that_the_gates_look_at(
    shape: tuple[int, ...], pairing: Literal["patches", "groups"]
) -> None:
    groups = {(6, 1): 6, (8, 3): 2}.get(shape[:2], 1)
    generator = np.random.default_rng(0)
    answers = set()
    for limit in (50, 64, 70, 90, 127):
        for _ in range(20):
            weights = generator.integers(-limit, limit + 1, shape).astype(np.int8)
            tensor = torch.from_numpy(weights)
            packed = IntegerWeights(
                tensor, torch.ones(1), torch.zeros(1), True, None, groups=groups
            )
            answer = leave_16_bits(weights, groups, pairing)
            assert answer == leaves_int16(packed, pairing)
            answers.add(answer)
    assert answers == ({False} if groups == shape[0] else {True, False})


def test_what_is_said_to_be_float_is_executed_so(
    workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ptqbench.backends.onnxruntime.executed_graph import executed_graph

    images = workshop.calibration[:8]
    model = workshop.model("squeezenet1_1")
    source = exported(model, tmp_path / "f.onnx", images[:2], dynamo=False)
    path = quantized(source, images, tmp_path / "signed.onnx")  # the tool's defaults
    code, content = inspect(path, capsys)
    assert code == 0
    graph = executed_graph(path)
    named = findings(content)["signed activations"]["places"]
    assert len(named) == len(graph.float_layers) == 24
    assert len(content["layers"]) - len(named) == len(graph.int8_layers)


def test_dynamic_quantization_multiplies_integers(
    workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnxruntime.quantization import quantize_dynamic

    from ptqbench.backends.onnxruntime.executed_graph import executed_graph

    images = workshop.calibration[:2]
    model = workshop.model("squeezenet1_1")
    source = exported(model, tmp_path / "f.onnx", images, dynamo=False)
    quantize_dynamic(source, tmp_path / "dynamic.onnx")
    code, content = inspect(tmp_path / "dynamic.onnx", capsys)
    assert code == 0 and content["precisions"]["int8, dynamic"]["layers"] == 26
    assert set(findings(content)) == {"saturating weights", "dynamic quantization"}
    layers = executed_graph(tmp_path / "dynamic.onnx").float_layers
    assert len(layers) == 26 and all("dynamic quantization" in each.obstacle for each in layers)
