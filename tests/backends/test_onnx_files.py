"""ONNX files that other tools made, and planted defects in them: which gate says what."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_strangers import exported, quantized
from helpers.tiny_networks import decibels
from torch import nn

from ptqbench import RunSettings, UserError, Verdict, validate
from ptqbench.backends.onnxruntime.float_islands import slow_layers
from ptqbench.backends.onnxruntime.ort_backend import ONNX_RUNTIME
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.cli import main
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.gates import GATES, Evidence, GateResult
from ptqbench.measurement.artifact_inspection import ArtifactInspection, ArtifactProvenance
from ptqbench.measurement.conversion import Promise
from ptqbench.measurement.size import measure_size
from ptqbench.models.catalog import MODELS
from ptqbench.settings.thresholds import Thresholds

onnx = pytest.importorskip("onnx", reason="onnx is not installed (ptqbench[onnx])")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (ptqbench[onnx])")
quantization = pytest.importorskip("onnxruntime.quantization")

pytestmark = pytest.mark.usefixtures("torch_settings")

MODEL = "squeezenet1_1"
INSIDE = ("fusion", "conversion", "saturation")
U8, S8 = quantization.QuantType.QUInt8, quantization.QuantType.QInt8
DOCUMENTED = {
    "per_channel": True,
    "reduce_range": True,
    "activation_type": U8,
    "weight_type": S8,
}


class Strangers:
    """Makes files from shipped weights, each once, and asks the gates that look inside."""

    def __init__(self, workshop: Any, folder: Path) -> None:
        self.workshop, self.folder = workshop, folder
        self.float32 = functools.cache(self._float32)
        self.sound = functools.cache(self._sound)
        self.reference = functools.cache(self._reference)

    def _float32(self, kind: str = "plain") -> Path:
        model = self.workshop.model(MODEL)
        options: dict[str, Any] = {"dynamo": False}
        if kind == "softmax":
            model = nn.Sequential(model, nn.Softmax(1))
        if kind == "one image":
            options["open_batch"] = False
        return exported(
            model, self.folder / f"{kind}.onnx", self.workshop.calibration[:2], **options
        )

    def quantize(self, name: str, kind: str = "plain", **options: Any) -> Path:
        images = self.workshop.calibration[:16]
        return quantized(self.float32(kind), images, self.folder / f"{name}.int8.onnx", **options)

    def _sound(self) -> Path:
        return self.quantize("sound", **DOCUMENTED)

    def _reference(self) -> tuple[Any, Path]:
        """The float model's graph, and its file as ptqbench writes it."""
        model, images = self.workshop.model(MODEL), self.workshop.calibration[:1]
        path = self.folder / "reference.onnx"
        ONNX_RUNTIME.build_float(model, MODEL, images, path)
        return read_float_graph(model, images), path

    def look(self, path: Path) -> dict[str, GateResult]:
        """What the gates say that look inside a file."""
        assert ONNX_RUNTIME.recognize(path) is None
        graph, float32 = self.reference()
        provenance = ArtifactProvenance(path, ONNX_RUNTIME, None, None, Promise(), float32)
        images = self.workshop.calibration[:4]
        int8, model = ONNX_RUNTIME.load(path), self.workshop.model(MODEL)
        inspection = ArtifactInspection(provenance, int8, graph, images, float32=model)
        result = inspection.measure(INSIDE)
        evidence = Evidence(Thresholds(), "avx2", {**result.measurements}, missing=result.missing)
        return {name: GATES.get(name)(evidence) for name in INSIDE}

    def changed(self, name: str, change: Callable[[Any], object]) -> Path:
        """A copy of the sound file with a defect."""
        model = onnx.load(self.sound())
        change(model)
        path = self.folder / f"{name}.onnx"
        onnx.save(model, path)
        return path


@pytest.fixture(scope="module")
def strangers(workshop, tmp_path_factory: pytest.TempPathFactory) -> Strangers:
    return Strangers(workshop, tmp_path_factory.mktemp("strangers"))


def initializer(model: Any, name: str) -> Any:
    return next(each for each in model.graph.initializer if each.name == name)


def store(model: Any, name: str, values: np.ndarray) -> None:
    initializer(model, name).CopyFrom(onnx.numpy_helper.from_array(values, name))


# Sound files


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("plain", DOCUMENTED),
        ("plain", DOCUMENTED | {"form": "QOperator"}),
        ("plain", {"activation_type": U8, "weight_type": U8}),
        ("plain", {"form": "QOperator"}),
        ("one image", DOCUMENTED),
        ("softmax", DOCUMENTED),
    ],
    ids=["QDQ", "QOperator", "per tensor", "signed QOperator", "one image", "softmax"],
)
def test_sound_files_of_onnx_runtime_pass_the_gates_that_look_inside(
    strangers: Strangers, request: pytest.FixtureRequest, kind: str, options: dict[str, Any]
) -> None:
    path = strangers.quantize(request.node.callspec.id, kind, **options)
    gates = strangers.look(path)
    assert {gate.verdict for gate in gates.values()} == {Verdict.PASS}, gates
    assert "in 26 layers the int8 weights are the float weights" in gates["fusion"].detail
    # u8 by u8 and s8 by s8 are added in 32 bits everywhere.
    assert "No layer can saturate on a CPU without VNNI" in gates["saturation"].detail


def test_a_files_own_door_leads_to_all_gates(strangers: Strangers, user_case) -> None:
    path = strangers.quantize("probabilities", "softmax", **DOCUMENTED)
    settings = RunSettings(input_size=64, threads=1)
    report = validate(
        MODEL, path, user_case.data, weights=str(user_case.weights), settings=settings
    )
    (case,) = report.cases
    gates = {gate.name: gate for gate in case.gates}
    assert case.backend == "onnxruntime"
    assert {gates[name].verdict for name in (*INSIDE, "fidelity", "size")} == {Verdict.PASS}
    assert gates["agreement"].observed > 0.9
    assert any("gives probabilities" in str(note) for note in case.facts["notes"])


def test_weights_in_other_files_of_the_folder_count(strangers: Strangers, tmp_path: Path) -> None:
    path = tmp_path / "parted.onnx"
    model = onnx.load(strangers.sound())
    onnx.save(model, path, save_as_external_data=True, location="parted.data", size_threshold=1024)
    gates = strangers.look(path)
    assert {gate.verdict for gate in gates.values()} == {Verdict.PASS}, gates
    files = ONNX_RUNTIME.files(path)
    assert {file.name for file in files} == {"parted.onnx", "parted.data"}
    together = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert measure_size(files, files).int8_bytes == together > 700_000


# Planted defects


def test_operators_on_signed_integers_are_named_as_the_cause_of_slowness(
    strangers: Strangers,
) -> None:
    graph = ONNX_RUNTIME.layers(strangers.quantize("slow", form="QOperator"))
    assert "26 of 26 int8 layers multiply s8 by s8" in slow_layers(graph, "avx2")
    assert slow_layers(graph, "neon") == ""
    assert slow_layers(ONNX_RUNTIME.layers(strangers.sound()), "avx2") == ""


def test_signed_activations_that_are_executed_in_float_are_named(strangers: Strangers) -> None:
    gate = strangers.look(strangers.quantize("signed"))["conversion"]
    assert gate.verdict is Verdict.FAIL
    assert "signed activations (s8)" in gate.detail and "QuantType.QUInt8" in gate.detail
    assert "qconfig" not in gate.detail and "stub" not in gate.detail
    # Layers are found by their weights, although these are dequantized first.
    assert "features.3.squeeze" in gate.detail


def test_a_layer_that_was_left_out_is_named(strangers: Strangers) -> None:
    nodes = onnx.load(strangers.sound()).graph.node
    layers = [node.name for node in nodes if node.op_type == "Conv"]
    # Not one in the middle: ONNX Runtime quantizes the weights of a layer between int8 ones itself.
    path = strangers.quantize("left out", nodes_to_exclude=layers[:1], **DOCUMENTED)
    gate = strangers.look(path)["conversion"]
    assert gate.verdict is Verdict.FAIL and gate.observed == 25
    assert "not int8: features.0 (look at which operators the tool" in gate.detail


def test_a_file_that_was_not_calibrated_is_recognised(strangers: Strangers) -> None:
    def forget(model: Any) -> None:
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear":
                store(model, node.input[1], np.float32(1))
                store(model, node.input[2], np.uint8(0))

    gate = strangers.look(strangers.changed("uncalibrated", forget))["conversion"]
    assert gate.verdict is Verdict.FAIL
    assert "default scale 1 and zero point 0" in gate.detail and "never calibrated" in gate.detail


def test_another_networks_weights_belong_to_no_layer(strangers: Strangers) -> None:
    torch.manual_seed(0)
    other = MODELS.get(MODEL).factory(len(CLASSES))
    images = strangers.workshop.calibration[:8]
    source = exported(other, strangers.folder / "other.onnx", images[:2], dynamo=False)
    path = quantized(source, images, strangers.folder / "other.int8.onnx", **DOCUMENTED)
    gate = strangers.look(path)["conversion"]
    assert gate.verdict is Verdict.FAIL
    assert "weights of no layer of the float model" in gate.detail


def test_one_scale_for_all_channels_of_a_depthwise_layer_shows_in_the_logits(workshop) -> None:
    model, folder = copy.deepcopy(workshop.model("mobilenet_v2")), workshop.folder
    with torch.no_grad():  # a channel with large weights that nothing depends on
        for block in list(model.features)[2:17]:
            block.conv[1][1].weight[0] *= 100
            block.conv[2].weight[:, 0] = 0
    images, _ = workshop.evaluation
    source = exported(model, folder / "depthwise.onnx", workshop.calibration[:2], dynamo=False)
    evidence = []
    for channels in (True, False):
        path = quantized(
            source,
            workshop.calibration[:16],
            folder / f"depthwise-{channels}.onnx",
            **DOCUMENTED | {"per_channel": channels},
        )
        with torch.inference_mode():
            float32, int8 = model(images), ONNX_RUNTIME.load(path)(images)
        same = float((float32.argmax(1) == int8.argmax(1)).float().mean())
        evidence.append((same, decibels(float32, int8)))
    (same, sqnr), (differing, noisy) = evidence
    assert same > 0.95 and sqnr > 20
    assert differing < 0.9 and noisy < 10  # what the agreement gate asks of unlabelled images


def test_full_range_weights_saturate_and_what_that_costs_is_measured(strangers: Strangers) -> None:
    path = strangers.quantize("full range", **DOCUMENTED | {"reduce_range": False})
    gate = strangers.look(path)["saturation"]
    assert "features.0" in gate.detail
    if not ONNX_RUNTIME.saturates():
        assert gate.verdict is Verdict.PASS
        assert "On a CPU without VNNI" in gate.detail
        return
    assert gate.verdict is Verdict.FAIL
    assert "reduce_range=True" in gate.detail
    assert "Executed exactly (session.x64quantprecision=1), the file has an SQNR of" in gate.detail


def moved(model: Any, location: str) -> None:
    weight = next(each for each in model.graph.initializer if len(each.raw_data) > 1000)
    onnx.external_data_helper.set_external_data(weight, location)
    weight.ClearField("raw_data")


def outside(model: Any) -> None:
    moved(model, "../secret.data")


def absent(model: Any) -> None:
    moved(model, "weights.data")


def not_a_number(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    store(model, node.input[1], np.float32("nan"))


def other_opset(model: Any) -> None:
    model.opset_import[0].version = 99


@pytest.mark.parametrize(
    ("defect", "sentence"),
    [
        (outside, "lies outside its folder (../secret.data)"),
        (absent, "its weights lie in weights.data, which is not beside it"),
        (not_a_number, "is nan, no number that a step can have"),
        (other_opset, "opset 99"),
    ],
)
def test_files_that_cannot_be_judged_end_with_a_sentence(
    strangers: Strangers, capsys: pytest.CaptureFixture[str], defect: Any, sentence: str
) -> None:
    path = strangers.changed(defect.__name__, defect)
    assert main(["gate", "--model", MODEL, "--artifact", str(path)]) == 2
    captured = capsys.readouterr()
    assert sentence in " ".join(captured.err.split())
    assert "Traceback" not in captured.err


def test_links_out_of_the_folder_and_short_files_are_refused(
    strangers: Strangers, tmp_path: Path
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    path, data = folder / "m.onnx", folder / "m.data"
    model = onnx.load(strangers.sound())
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=1024)
    content = data.read_bytes()
    data.write_bytes(content[:-5])
    with pytest.raises(UserError, match="is not complete"):
        ONNX_RUNTIME.recognize(path)
    data.unlink()
    (tmp_path / "elsewhere.data").write_bytes(content)
    data.symlink_to(tmp_path / "elsewhere.data")
    with pytest.raises(UserError, match="outside its folder"):
        ONNX_RUNTIME.recognize(path)
