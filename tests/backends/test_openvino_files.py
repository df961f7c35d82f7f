"""OpenVINO files that NNCF made, and planted defects in them: which gate says what."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.ir_strangers import changed, integers_of, of_kind, put, quantized
from helpers.tiny_networks import decibels
from torch import nn

from ptqbench import Verdict
from ptqbench.backends.openvino.ov_backend import OPENVINO
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.cli import main
from ptqbench.gates import GATES, Evidence, GateResult
from ptqbench.inspection.formats import inspect_file
from ptqbench.measurement.artifact_inspection import ArtifactInspection, ArtifactProvenance
from ptqbench.measurement.conversion import Promise
from ptqbench.settings.thresholds import Thresholds

if _REASON := OPENVINO.availability():
    pytest.skip(_REASON, allow_module_level=True)
nncf = pytest.importorskip("nncf", reason="nncf, which makes the files, is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("torch_settings")]

MODEL = "mobilenet_v2"
INSIDE = ("fusion", "conversion", "saturation")
LAYERS = ("Convolution", "GroupConvolution", "MatMul")


class Strangers:
    """Files from shipped weights, each made once, and what the gates say that look inside."""

    def __init__(self, workshop: Any, folder: Path) -> None:
        self.workshop, self.folder = workshop, folder
        self.documented = functools.cache(lambda: self._quantized("documented"))
        # For CPUs without VNNI, as the documentation of NNCF advises.
        self.sound = functools.cache(
            lambda: self._quantized("sound", overflow_fix=nncf.OverflowFix.ENABLE)
        )
        self.reference = functools.cache(self._reference)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network, with a large channel in depthwise layers that nothing depends on."""
        model = copy.deepcopy(self.workshop.model(MODEL))
        with torch.no_grad():
            for block in list(model.features)[2:17]:
                block.conv[1][1].weight[0] *= 100
                block.conv[2].weight[:, 0] = 0
        return model

    def _quantized(self, name: str, **options: Any) -> Path:
        images = self.workshop.calibration[:16]
        return quantized(self.model, images, self.folder / f"{name}.xml", **options)

    def _reference(self) -> tuple[Any, Path]:
        """The float model's graph, and its file as ptqbench writes it."""
        images, path = self.workshop.calibration[:1], self.folder / "reference.xml"
        OPENVINO.build_float(self.model, MODEL, images, path)
        return read_float_graph(self.model, images), path

    def look(self, path: Path) -> dict[str, GateResult]:
        """What the gates say that look inside a file."""
        assert OPENVINO.recognize(path) is None
        graph, float32 = self.reference()
        provenance = ArtifactProvenance(path, OPENVINO, None, None, Promise(), float32)
        images = self.workshop.calibration[:4]
        inspection = ArtifactInspection(provenance, OPENVINO.load(path), graph, images)
        result = inspection.measure(INSIDE)
        evidence = Evidence(Thresholds(), "avx2", {**result.measurements}, missing=result.missing)
        return {name: GATES.get(name)(evidence) for name in INSIDE}

    def planted(self, change: Callable[[Any], object]) -> Path:
        """A copy of the sound file with a defect."""
        return changed(self.sound(), self.folder / f"{change.__name__}.xml", change)


@pytest.fixture(scope="module")
def strangers(workshop, tmp_path_factory: pytest.TempPathFactory) -> Strangers:
    return Strangers(workshop, tmp_path_factory.mktemp("strangers"))


def findings(path: Path) -> set[str]:
    return {finding.kind for finding in inspect_file(path).findings}


def test_a_sound_file_passes_the_gates_that_look_inside(strangers: Strangers) -> None:
    gates = strangers.look(strangers.sound())
    assert {gate.verdict for gate in gates.values()} == {Verdict.PASS}, gates
    assert gates["conversion"].observed == 53
    assert "No layer can saturate on a CPU without VNNI" in gates["saturation"].detail
    inspection = inspect_file(strangers.sound())
    assert {each.precision for each in inspection.layers} == {"int8"}
    assert inspection.producer.startswith("NNCF 3") and not inspection.has_errors
    images, _ = strangers.workshop.evaluation
    with torch.inference_mode():
        float32, int8 = strangers.model(images), OPENVINO.load(strangers.sound())(images)
    assert decibels(float32, int8) > 16


def test_the_documented_call_goes_through_the_command(
    strangers: Strangers, user_case: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = strangers.workshop.model(MODEL)
    path = quantized(model, strangers.workshop.calibration[:16], tmp_path / "m.xml")
    report = tmp_path / "report.json"
    argv = ["gate", "--model", MODEL, "--artifact", str(path), "--data", str(user_case.data)]
    code = main([*argv, "--input-size", "64", "--threads", "1", "--json", str(report)])
    assert code in (0, 1), capsys.readouterr().err
    (case,) = json.loads(report.read_text("utf-8"))["cases"]
    gates = {gate["name"]: gate for gate in case["gates"]}
    for name in ("fusion", "conversion", "fidelity", "size"):
        assert gates[name]["verdict"] == "pass", gates[name]
    for name in ("accuracy", "agreement"):
        assert gates[name]["verdict"] != "unverified", gates[name]
    # It uses all 8 bits: exact with VNNI, and what it is elsewhere is said.
    if OPENVINO.saturates():
        assert gates["saturation"]["verdict"] == "fail"
    else:
        assert gates["saturation"]["verdict"] == "pass"
        assert "On a CPU without VNNI" in gates["saturation"]["detail"]
    assert findings(path) == {"saturating weights"}


def not_calibrated(model: Any) -> None:
    for node in of_kind(model, "FakeQuantize"):
        for place, end in ((1, 0), (2, 255), (3, 0), (4, 255)):
            put(node.input_value(place).get_node(), np.float32(end))


def left_float(model: Any) -> None:
    layer = of_kind(model, "Convolution")[3]
    integers, scales = integers_of(layer)
    put(layer.input_value(1).get_node(), integers.data.astype(np.float32) * scales.data)


def full_range(model: Any) -> None:
    """The same function in twice as large integers."""
    for layer in of_kind(model, *LAYERS):
        integers, scales = integers_of(layer)
        put(integers, (integers.data.astype(np.int16) * 2).clip(-127, 127).astype(np.int8))
        put(scales, np.array(scales.data / 2))


def per_tensor(model: Any) -> None:
    """One scale in each depthwise layer."""
    for layer in of_kind(model, "GroupConvolution"):
        integers, scales = integers_of(layer)
        weights = integers.data.astype(np.float32) * scales.data
        scale = np.float32(np.abs(weights).max() / 63)
        put(integers, np.round(weights / scale).astype(np.int8))
        put(scales, np.full((1,) * weights.ndim, scale, np.float32))


def another_network(model: Any) -> None:
    generator = np.random.default_rng(0)
    for layer in of_kind(model, *LAYERS):
        integers, _ = integers_of(layer)
        put(integers, generator.integers(-63, 64, integers.data.shape).astype(np.int8))


def test_a_file_that_was_not_calibrated_is_recognized(strangers: Strangers) -> None:
    path = strangers.planted(not_calibrated)
    gate = strangers.look(path)["conversion"]
    assert gate.verdict is Verdict.FAIL
    assert "default scale 1 and zero point 0" in gate.detail and "never calibrated" in gate.detail
    assert "not calibrated" in findings(path)


def test_a_layer_that_was_left_out_is_named(strangers: Strangers) -> None:
    path = strangers.planted(left_float)
    gate = strangers.look(path)["conversion"]
    assert gate.verdict is Verdict.FAIL and gate.observed == 52
    assert "not int8: features.2.conv.2 (look at which operators the tool" in gate.detail
    (finding,) = (each for each in inspect_file(path).findings if each.kind == "float layers")
    (place,) = finding.places  # the converter has folded its BatchNorm
    assert place.endswith("(before features.2.conv.3)")


def test_full_range_weights_are_predicted_to_saturate_on_any_cpu(strangers: Strangers) -> None:
    path = strangers.planted(full_range)
    gate = strangers.look(path)["saturation"]
    assert "features.2.conv.0.0" in gate.detail
    assert gate.verdict is (Verdict.FAIL if OPENVINO.saturates() else Verdict.PASS)
    words = "overflow_fix" if OPENVINO.saturates() else "On a CPU without VNNI"
    assert words in gate.detail
    assert "saturating weights" in findings(path)


def test_one_scale_for_all_channels_of_depthwise_layers_shows_in_the_logits(
    strangers: Strangers,
) -> None:
    path = strangers.planted(per_tensor)
    images, _ = strangers.workshop.evaluation
    with torch.inference_mode():
        float32, int8 = strangers.model(images), OPENVINO.load(path)(images)
    same = float((float32.argmax(1) == int8.argmax(1)).float().mean())
    assert same < 0.9 and decibels(float32, int8) < 10  # which the agreement gate refuses
    (finding,) = (e for e in inspect_file(path).findings if e.kind == "per-tensor depthwise")
    assert len(finding.places) == 17


def test_another_networks_weights_belong_to_no_layer(strangers: Strangers) -> None:
    gate = strangers.look(strangers.planted(another_network))["conversion"]
    assert gate.verdict is Verdict.FAIL
    assert "weights of no layer of the float model" in gate.detail


def not_a_number(structure: bytes, weights: bytes) -> tuple[bytes, bytes | None]:
    return structure, np.full(len(weights) // 4, np.nan, np.float32).tobytes() + weights[-3:]


DAMAGES: dict[str, tuple[Callable[[bytes, bytes], tuple[bytes, bytes | None]], str]] = {
    "truncated": (lambda s, w: (s, w[: len(w) // 2]), "it is not complete, or of another model"),
    "structure truncated": (lambda s, w: (s[: len(s) // 2], w), "no XML, or not complete"),
    "without weights": (lambda s, w: (s, None), "is not beside it"),
    "not numbers": (not_a_number, "some of its weights or scales are not numbers"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_files_that_cannot_be_judged_end_with_a_sentence(
    strangers: Strangers, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound, path = strangers.sound(), tmp_path / "m.xml"
    damage, sentence = DAMAGES[name]
    structure, weights = damage(sound.read_bytes(), sound.with_suffix(".bin").read_bytes())
    path.write_bytes(structure)
    if weights is not None:
        path.with_suffix(".bin").write_bytes(weights)
    assert main(["gate", "--model", MODEL, "--artifact", str(path)]) == 2
    captured = capsys.readouterr()
    assert sentence in " ".join(captured.err.split()) and "Traceback" not in captured.err
