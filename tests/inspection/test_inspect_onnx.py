"""``ptqbench inspect`` on files with planted findings, and against what is really executed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_strangers import exported, quantized

from ptqbench.backends.graph import IntegerWeights
from ptqbench.backends.integer_reference import leaves_int16
from ptqbench.cli import main
from ptqbench.inspection.weight_pairs import leave_16_bits

onnx = pytest.importorskip("onnx", reason="onnx is not installed (ptqbench[onnx])")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (ptqbench[onnx])")

CHANNELS = 8


class Qdq:
    """Builds a QDQ file of three layers: 3×3 convolution, depthwise convolution, head."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.nodes: list[Any] = []
        self.values: dict[str, np.ndarray] = {}

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def store(self, name: str, value: object) -> str:
        self.values[name] = np.asarray(value)
        return name

    def pair(self, name: str, scale: float = 0.02) -> str:
        """Quantize and dequantize a value."""
        if self.options.get("uncalibrated"):
            scale = 1.0
        zero = np.int8(3) if self.options.get("signed") else np.uint8(0 if scale == 1 else 3)
        rest = [
            self.store(f"{name}_s", np.float32(self.options.get("scale", scale))),
            self.store(f"{name}_z", zero),
        ]
        self.add("QuantizeLinear", [name, *rest], f"{name}_q")
        return self.add("DequantizeLinear", [f"{name}_q", *rest], f"{name}_dq")

    def weight(self, name: str, *shape: int) -> str:
        """Integers that are dequantized."""
        limit = self.options.get("limit", 63)
        integers = np.full(shape, limit, np.int8)
        channels = 1 if self.options.get("per_tensor") else shape[0]
        zero = self.options.get("weight_zero", 0)
        scales = np.full(channels, 0.01, np.float32)
        parts = [
            self.store(f"{name}.weight_quantized", integers),
            self.store(f"{name}_ws", scales if channels > 1 else scales[0]),
            self.store(f"{name}_wz", np.full(channels, zero, np.int8).reshape(scales.shape)),
        ]
        if channels == 1:
            self.values[parts[2]] = np.int8(zero)
        options = {"axis": 0} if channels > 1 else {}
        return self.add("DequantizeLinear", parts, f"{name}.weight", **options)

    def write(self, path: Path) -> Path:
        x = self.pair("images")
        x = self.add("Conv", [x, self.weight("stem", CHANNELS, 3, 3, 3)], "stem")
        x = self.pair(self.add("Relu", [x], "relu"))
        weight = self.weight("depthwise", CHANNELS, 1, 3, 3)
        x = self.pair(self.add("Conv", [x, weight], "depthwise", group=CHANNELS))
        if self.options.get("hard_swish"):
            x = self.pair(self.add("HardSwish", [x], "swish"))
        x = self.pair(self.add("GlobalAveragePool", [x], "pool"))
        x = self.add("Flatten", [x], "flat")
        if self.options.get("float_head"):
            head = self.store("fc.weight", np.ones((5, CHANNELS), np.float32))
        else:
            head = self.weight("fc", 5, CHANNELS)
        x = self.pair(self.add("Gemm", [x, head], "fc", transB=1))
        self.add("Softmax" if self.options.get("softmax") else "Identity", [x], "logits")
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes,
            "net",
            [info("images", 1, ["batch", 3, 10, 10])],
            [info("logits", 1, ["batch", 5])],
            [onnx.numpy_helper.from_array(value, name) for name, value in self.values.items()],
        )
        opset = onnx.helper.make_opsetid("", 20)
        onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
        return path


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
    other = tmp_path / "m.xml"
    other.write_text("<net/>")
    for file, sentence in (
        (path, "not complete"),
        (other, "OpenVINO IR cannot be inspected yet"),
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


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (6, 4, 1, 1), (6, 1, 3, 3), (5, 7)])
def test_pairs_are_those_that_the_gates_look_at(shape: tuple[int, ...]) -> None:
    groups = 6 if shape[1] == 1 else 1
    generator = np.random.default_rng(0)
    answers = set()
    for limit in (50, 64, 70, 90, 127):
        for _ in range(20):
            weights = generator.integers(-limit, limit + 1, shape).astype(np.int8)
            tensor = torch.from_numpy(weights)
            packed = IntegerWeights(
                tensor, torch.ones(1), torch.zeros(1), True, None, groups=groups
            )
            answer = leave_16_bits(weights, groups)
            assert answer == leaves_int16(packed, "patches")
            answers.add(answer)
    assert answers == ({False} if groups > 1 else {True, False})


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
