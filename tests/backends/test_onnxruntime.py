"""ONNX Runtime: what its kernels add, what its files contain, and how they are executed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.executed_pairs import declared_pairs, executed_pairs
from helpers.tiny_networks import decibels
from torch import Tensor, nn

from ptqbench import RunSettings, UserError, Verdict
from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.onnxruntime.ort_backend import ONNX_RUNTIME
from ptqbench.backends.onnxruntime.ort_probe import layer_outputs
from ptqbench.backends.onnxruntime.ort_session import EXACT, OrtModel
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.core.phases import Phases
from ptqbench.gates import GATES, Evidence
from ptqbench.measurement.artifact_inspection import (
    INSPECTIONS,
    ArtifactInspection,
    ArtifactProvenance,
)
from ptqbench.measurement.conversion import Promise
from ptqbench.quantization.build import simulate_model
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.settings.thresholds import Thresholds

onnx = pytest.importorskip("onnx", reason="onnx is not installed (ptqbench[onnx])")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (ptqbench[onnx])")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (ptqbench[onnx])")

pytestmark = pytest.mark.usefixtures("torch_settings")

SHAPES = {
    "pointwise": ((8, 16, 1, 1), 1),
    "odd channels": ((8, 3, 3, 3), 1),
    "dense": ((8, 8, 3, 3), 1),
    "groups": ((16, 4, 3, 3), 4),
    "odd groups": ((12, 3, 3, 3), 4),
    "depthwise": ((16, 1, 3, 3), 16),
    "depthwise 5×5": ((16, 1, 5, 5), 16),
    "linear": ((16, 17), 1),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_kernels_add_the_declared_pairs_and_no_others(kind: str) -> None:
    shape, groups = SHAPES[kind]
    executed = executed_pairs(layer_outputs, shape, groups)
    assert executed == declared_pairs(ONNX_RUNTIME, shape, groups)


def test_the_probe_tells_what_the_kernels_do() -> None:
    shares = ONNX_RUNTIME.probe()
    assert shares["depthwise convolution"] == 1.0
    assert (shares["convolution"] < 0.6) == ONNX_RUNTIME.saturates()


# Shipped models


def build(workshop, name: str, folder: Path) -> Artifact:
    recipe = workshop.recipe(name)
    path = folder / f"{name}.onnx"
    return ONNX_RUNTIME.build(workshop.model(name), recipe, workshop.batches(), path)


def inspected(workshop, name: str, path: Path, record: BuildRecord | None = None, **promise):
    """What the gates say that look inside a file."""
    reference = read_float_graph(workshop.model(name), workshop.calibration[:1])
    provenance = ArtifactProvenance(path, ONNX_RUNTIME, ONNX_RUNTIME, record, Promise(**promise))
    images = workshop.calibration
    inspection = ArtifactInspection(provenance, ONNX_RUNTIME.load(path), reference, images)
    result = inspection.measure(INSPECTIONS)
    evidence = Evidence(Thresholds(), "avx2", {**result.measurements}, missing=result.missing)
    return {gate: GATES.get(gate)(evidence) for gate in result.measurements}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_a_shipped_recipe_is_right_inside_and_as_close_as_under_torch(
    workshop, name: str, tmp_path: Path
) -> None:
    artifact = build(workshop, name, tmp_path)
    record = BuildRecord.from_dict(artifact.info.build)
    count = workshop.recipe(name).int8_modules
    gates = inspected(workshop, name, artifact.path, record, int8_layers=count, per_channel=True)
    assert {gate.verdict for gate in gates.values()} == {Verdict.PASS}, gates
    assert gates["conversion"].observed == count
    images, _ = workshop.evaluation
    with torch.inference_mode():
        float32 = workshop.model(name)(images)
        sqnr = decibels(float32, artifact.load()(images))
        torch_sqnr = decibels(float32, workshop.built(name, "onednn").artifact.load()(images))
    assert sqnr > torch_sqnr - 1.0
    # One file, with a weight of a byte for each of four.
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.onnx"]
    parameters = sum(p.numel() for p in workshop.model(name).parameters())
    assert artifact.size_bytes < 1.35 * parameters


def test_a_file_computes_what_the_simulation_does(workshop, tmp_path: Path) -> None:
    model, recipe = workshop.model("squeezenet1_1"), workshop.recipe("squeezenet1_1")
    pairing = ONNX_RUNTIME.pairing if ONNX_RUNTIME.saturates() else None
    quantized = simulate_model(model, recipe, workshop.batches(), pairing=pairing, phases=Phases())
    artifact = build(workshop, "squeezenet1_1", tmp_path)
    images, _ = workshop.evaluation
    with torch.inference_mode():
        simulated = quantized.simulation.module(images)
        executed = artifact.load()(images)
        literal = OrtModel(artifact.path, options={"session.disable_quant_qdq": "1"})(images)
    # Rounding the other way now and then is all that is different.
    assert decibels(simulated, literal) > 28
    assert decibels(simulated, executed) > 28


def test_the_float32_file_is_the_model(workshop, tmp_path: Path) -> None:
    model = workshop.model("mobilenet_v3_large")
    example = workshop.calibration[:1]
    artifact = ONNX_RUNTIME.build_float(model, "mobilenet_v3_large", example, tmp_path / "f.onnx")
    assert Artifact.open(artifact.path).info.precision == "float32"
    loaded = artifact.load()
    for images in (example, workshop.calibration[:5], torch.randn(2, 3, 96, 128)):
        with torch.inference_mode():
            torch.testing.assert_close(loaded(images), model(images), rtol=1e-3, atol=1e-3)
    kinds = {node.op_type for node in onnx.load(artifact.path).graph.node}
    assert not kinds & {"Constant", "ReduceMean"} and "GlobalAveragePool" in kinds
    # A bias that is computed would keep the runtime from folding the BatchNorms into it.
    assert not kinds & {"CastLike", "Expand", "Shape"}
    assert not any(
        operator.is_batch_norm for operator in ONNX_RUNTIME.layers(artifact.path).operators
    )
    assert b"site-packages" not in artifact.path.read_bytes()


# Sizes


class Rows(nn.Module):
    """Mixes rows with columns, so that its shapes are products of the size of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x.flatten(2).transpose(1, 2).reshape(len(x), x.shape[2], x.shape[3], 8)
        return self.linear(x.amax(1)).mean(1)


class Fixed(nn.Module):
    """Flattens a map whose size its linear layer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).flatten(1))


@pytest.mark.parametrize("kind", [Rows, Fixed])
def test_files_take_as_many_images_and_sizes_as_their_model(kind, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    example = torch.randn(1, 3, 16, 16)
    artifact = ONNX_RUNTIME.build_float(model, "m", example, tmp_path / "m.onnx")
    inputs = [example, torch.randn(7, 3, 16, 16)]
    if kind is Rows:
        inputs.append(torch.randn(2, 3, 32, 24))
    for images in inputs:
        with torch.inference_mode():
            torch.testing.assert_close(artifact.load()(images), model(images))


def test_a_session_has_as_many_threads_as_torch(tmp_path: Path) -> None:
    model, example = Fixed().eval(), torch.randn(1, 3, 16, 16)
    artifact = ONNX_RUNTIME.build_float(model, "m", example, tmp_path / "m.onnx")
    loaded = artifact.load()
    for threads in (2, 1):
        torch.set_num_threads(threads)
        loaded(example)
        assert loaded.session.get_session_options().intra_op_num_threads == threads
    options = loaded.session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.inter_op_num_threads == 1


def test_what_saturates_is_right_when_executed_exactly(workshop, tmp_path: Path) -> None:
    recipe = workshop.recipe("squeezenet1_1", spare_bit="none")
    path = tmp_path / "s.onnx"
    artifact = ONNX_RUNTIME.build(workshop.model("squeezenet1_1"), recipe, workshop.batches(), path)
    images, _ = workshop.evaluation
    with torch.inference_mode():
        float32 = workshop.model("squeezenet1_1")(images)
        executed = decibels(float32, artifact.load()(images))
        exact = decibels(float32, OrtModel(path, options={EXACT: "1"})(images))
    assert exact > 25
    assert (executed < exact - 3) == ONNX_RUNTIME.saturates()
    gate = inspected(workshop, "squeezenet1_1", path)["saturation"]
    assert gate.verdict is (Verdict.FAIL if ONNX_RUNTIME.saturates() else Verdict.PASS)


# Files


def conv_model(path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)).eval()
    ONNX_RUNTIME.build_float(model, "m", torch.randn(1, 3, 16, 16), path)


def test_files_that_must_not_be_loaded_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    conv_model(path)
    sound = path.read_bytes()
    for content, message in (
        (b"", "it is empty"),
        (b"no model at all", "no ONNX model, or not complete"),
        (sound[: len(sound) // 2], "no ONNX model, or not complete"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            ONNX_RUNTIME.recognize(path)
    custom = onnx.ModelProto.FromString(sound)
    custom.graph.node[0].domain = "com.somebody"
    custom.opset_import.append(onnx.helper.make_opsetid("com.somebody", 1))
    onnx.save(custom, path)
    with pytest.raises(UserError, match=r"custom operators \(com.somebody::"):
        ONNX_RUNTIME.recognize(path)
    with pytest.raises(UserError, match="does not exist"):
        ONNX_RUNTIME.recognize(tmp_path / "none.onnx")


def test_a_missing_extra_is_unverified_and_says_what_to_install(
    workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec

    def without(name: str, *more: object) -> object:
        return None if name == "onnxruntime" else find_spec(name, *more)

    monkeypatch.setattr("importlib.util.find_spec", without)
    from ptqbench import validate

    report = validate("squeezenet1_1", "onnxruntime", settings=RunSettings(threads=1))
    assert {gate.verdict for gate in report.cases[0].gates} == {Verdict.UNVERIFIED}
    assert "pip install 'ptqbench[onnx]'" in report.cases[0].gates[0].detail
    assert BACKENDS.get("onnxruntime").refusal(workshop.recipe("resnet18"))
