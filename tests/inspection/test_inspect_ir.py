"""``ptqbench inspect`` on OpenVINO's files, and against what OpenVINO really executes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.ir_files import Ir
from helpers.qdq_files import Qdq

from ptqbench.backends.openvino.ov_backend import OPENVINO
from ptqbench.cli import main

if _REASON := OPENVINO.availability():
    pytest.skip(_REASON, allow_module_level=True)

SIZES = {"stem": 222 * 222 * 8 * 27, "depthwise": 220 * 220 * 8 * 9, "fc": 5 * 8}
"""Multiply-adds by layer for one image of 224×224."""


def inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["inspect", str(path), "--json"])
    return code, json.loads(capsys.readouterr().out)


def findings(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["kind"]: finding for finding in content["findings"]}


@pytest.mark.parametrize("options", [{}, {"rounded_weights": True}], ids=["integers", "rounded"])
def test_a_sound_file_has_nothing_to_find(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Ir(**options).write(tmp_path / "sound.xml")
    code, content = inspect(path, capsys)
    assert code == 0 and content["findings"] == []
    assert (content["inspection_version"], content["format"]) == (1, "openvino")
    assert content["ir_version"] == 11
    assert content["precisions"] == {"int8": {"layers": 3, "share_of_multiply_adds": 1.0}}
    assert {each["name"]: each["multiply_adds"] for each in content["layers"]} == SIZES
    assert {each["weight_scales"] for each in content["layers"]} == {8, 5}
    assert content["size_bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert main(["inspect", str(path)]) == 0
    assert "nothing was found that is wrong" in capsys.readouterr().out


def pad(o: Any, x: Any) -> Any:
    ends = o.constant(np.array([0, 0, 1, 1]))
    return o.pad(x, ends, ends, "constant")


def pool(rounding: str) -> Callable[[Any, Any], Any]:
    def make(o: Any, x: Any) -> Any:
        from openvino import opset14

        return opset14.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], True, rounding)

    return make


def normalized(o: Any, x: Any) -> Any:
    return o.mvn(x, o.constant(np.array([2, 3])), True, 1e-5, "inside_sqrt")


PLANTED = [
    ("not calibrated", {"uncalibrated": True}, 1, None),
    ("broken scales", {"ends": (0.5, 0.5)}, 1, None),
    ("broken scales", {"ends": (np.nan, 1.0)}, 1, None),
    ("broken scales", {"weight_scale": np.inf}, 1, None),
    ("per-tensor depthwise", {"per_tensor": True}, 0, ["depthwise"]),
    ("saturating weights", {"limit": 65}, 0, ["stem", "fc"]),
    ("saturating weights", {"limit": 65, "rounded_weights": True}, 0, ["stem", "fc"]),
    ("saturating weights", {"limit": 65, "signed": True}, 0, ["stem", "fc"]),
    ("asymmetric weights", {"asymmetric": "stem"}, 0, ["stem"]),
    ("float layers", {"float_layer": "fc"}, 0, ["fc"]),
    ("integers without an int8 kernel", {"bare_image": True}, 0, ["stem"]),
    ("islands", {"middle": lambda o, x: o.softmax(x, 1)}, 0, ["middle"]),
    ("islands", {"middle": normalized}, 0, ["middle"]),
    ("islands", {"middle": pad}, 0, ["middle"]),
    ("float tail", {"softmax": True}, 0, None),
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
    exit_code, content = inspect(Ir(**options).write(tmp_path / "planted.xml"), capsys)
    assert (exit_code, list(findings(content))) == (code, [kind])
    finding = findings(content)[kind]
    assert finding["remedy"] and (finding["severity"] == "error") == bool(code)
    if places is not None:
        assert finding["places"] == places


def test_float16_and_float32_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Ir(float_layer="fc", float_type=np.float16).write(tmp_path / "half.xml")
    _, content = inspect(path, capsys)
    assert list(findings(content)) == ["float layers", "float16 constants"]
    assert findings(content)["float16 constants"]["places"] == ["fc.weight"]


EXECUTED = {
    "integers": {},
    "rounded weights": {"rounded_weights": True},
    "zero points": {"asymmetric": "stem"},
    "zero points of a linear layer": {"asymmetric": "fc"},
    "unsigned weights": {"unsigned": True},
    "signed": {"signed": True},
    "bare image": {"bare_image": True},
    "float head": {"float_layer": "fc"},
    "scales by channel": {"per_channel": "pool_fq"},
    "softmax": {"middle": lambda o, x: o.softmax(x, 1)},
    "normalization": {"middle": normalized},
    "padding": {"middle": pad},
    "hard-swish": {"middle": lambda o, x: o.hswish(x)},
    "exponential": {"middle": lambda o, x: o.exp(x)},
    "pool": {"middle": pool("ceil"), "bare": True},
    "pool of PyTorch": {"middle": pool("ceil_torch"), "bare": True},
}


@pytest.mark.parametrize("name", EXECUTED)
def test_what_is_said_to_be_int8_is_executed_so(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = dict(EXECUTED[name])
    if options.pop("per_channel", None):
        options = {"middle": lambda o, x: x, "per_channel": "stem_fq"}
    path = Ir(**options).write(tmp_path / "m.xml")
    _, content = inspect(path, capsys)
    graph = OPENVINO.layers(path)
    predicted = content["precisions"].get("int8", {"layers": 0})["layers"]
    assert predicted == len(graph.int8_layers) and len(content["layers"]) == 3
    alone = [o for o in graph.operators if o.value == "middle" and o.precision == "f32"]
    named = {"islands", "integers without an int8 kernel"} & set(findings(content))
    assert bool(alone) == bool(named) or name == "bare image"


def test_the_same_model_says_the_same_in_both_formats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ptqbench.backends.openvino.ov_import import import_openvino

    openvino = import_openvino()
    for options in ({}, {"limit": 127}, {"uncalibrated": True}, {"float_head": True}):
        source = Qdq(**options).write(tmp_path / "m.onnx")
        # Zero points, conversions to integers and back: the form of a model that was ONNX.
        openvino.save_model(openvino.Core().read_model(str(source)), str(tmp_path / "m.xml"))
        (code, onnx), (ir_code, ir) = (
            inspect(tmp_path / f"m.{e}", capsys) for e in ("onnx", "xml")
        )
        assert (code, onnx["precisions"]) == (ir_code, ir["precisions"])
        for key in ("precision", "multiply_adds", "weight_scales"):
            assert [each[key] for each in onnx["layers"]] == [each[key] for each in ir["layers"]]
        assert set(findings(onnx)) == set(findings(ir)) - {"float16 constants"}


def edited(old: str, new: str) -> Callable[[bytes, bytes], tuple[bytes, bytes]]:
    def edit(structure: bytes, weights: bytes) -> tuple[bytes, bytes]:
        assert old.encode() in structure
        return structure.replace(old.encode(), new.encode(), 1), weights

    return edit


DAMAGES: dict[str, tuple[Callable[[bytes, bytes], tuple[bytes, bytes | None]], str]] = {
    "empty": (lambda s, w: (b"", w), "it is empty"),
    "half": (lambda s, w: (s[: len(s) // 2], w), "no XML, or not complete"),
    "no weights": (lambda s, w: (s, None), "m.bin, is not beside it"),
    "half of the weights": (lambda s, w: (s, w[: len(w) // 2]), "but its weights take"),
    "document type": (edited("<net", "<!DOCTYPE net><net"), "declares a document type"),
    "entities": (
        edited("<net", '<!DOCTYPE net [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><net'),
        "declares a document type",
    ),
    "custom operator": (edited('version="opset1"', 'version="mine"'), "custom operators (mine::"),
    "nowhere": (edited('<edge from-layer="0"', '<edge from-layer="999"'), "no operator writes"),
    "no number": (edited('offset="', 'offset="x'), "no XML, or not complete"),
    "negative": (edited('offset="', 'offset="-1'), "at a negative place"),
    "another kind": (lambda s, w: (b"<html/>", w), "no model of OpenVINO"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_end_with_a_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Ir().write(tmp_path / "m.xml")
    weights = path.with_suffix(".bin")
    damage, sentence = DAMAGES[name]
    structure, content = damage(path.read_bytes(), weights.read_bytes())
    path.write_bytes(structure)
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    assert main(["inspect", str(path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_operators_in_a_circle_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.xml"
    port = '<output><port id="0"><dim>1</dim></port></output>'
    layers = "".join(
        f'<layer id="{i}" name="{i}" type="ReLU" version="opset1">{port}</layer>' for i in (0, 1)
    )
    edges = "".join(
        f'<edge from-layer="{i}" from-port="0" to-layer="{1 - i}" to-port="0"/>' for i in (0, 1)
    )
    path.write_text(
        f'<net name="n" version="11"><layers>{layers}</layers><edges>{edges}</edges></net>'
    )
    assert main(["inspect", str(path)]) == 2
    assert "read each other in a circle" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "none.xml")]) == 2
    assert "does not exist" in capsys.readouterr().err
    path.with_suffix(".bin").write_bytes(b"\0")
    assert main(["inspect", str(path.with_suffix(".bin"))]) == 2
    assert "the .xml beside it" in capsys.readouterr().err


def test_it_takes_neither_torch_nor_openvino_and_less_than_two_seconds(tmp_path: Path) -> None:
    path = Ir(limit=127).write(tmp_path / "m.xml")
    program = (
        "import sys, time; from ptqbench.cli import main; "
        f"code = main(['inspect', {str(path)!r}]); "
        "print(code, {'torch', 'openvino', 'onnx'} & set(sys.modules), time.process_time())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    code, modules, seconds = result.stdout.splitlines()[-1].split()
    assert (code, modules) == ("0", "set()")
    assert float(seconds) < 2
    assert "! warning Full-range weights in 2 layers" in result.stdout
