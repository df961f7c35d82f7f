"""OpenVINO: what its kernels add, what its files contain, and how they are executed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.executed_pairs import declared_pairs, executed_pairs
from helpers.qdq_files import Qdq
from helpers.tiny_networks import decibels
from torch import Tensor, nn

from ptqbench import RunSettings, UserError, Verdict
from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.openvino.ir_compaction import compact
from ptqbench.backends.openvino.ir_structure import weights_path
from ptqbench.backends.openvino.ov_backend import OPENVINO
from ptqbench.backends.openvino.ov_probe import layer_outputs
from ptqbench.backends.openvino.ov_session import OvModel
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

if _REASON := OPENVINO.availability():
    pytest.skip(_REASON, allow_module_level=True)

pytestmark = pytest.mark.usefixtures("torch_settings")

SHAPES = {
    "pointwise": ((64, 16, 1, 1), 1),
    "odd channels": ((64, 3, 3, 3), 1),
    "dense": ((256, 8, 3, 3), 1),
    "groups": ((64, 4, 3, 3), 4),
    "odd groups": ((48, 3, 3, 3), 4),
    "two outputs a channel": ((64, 1, 3, 3), 32),
    "depthwise": ((64, 1, 3, 3), 64),
    "depthwise 5×5": ((64, 1, 5, 5), 64),
    "one dimension": ((64, 3, 3), 1),
    "linear": ((64, 17), 1),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_kernels_add_the_declared_pairs_and_no_others(kind: str) -> None:
    shape, groups = SHAPES[kind]
    executed = executed_pairs(layer_outputs, shape, groups)
    assert executed == declared_pairs(OPENVINO, shape, groups)


def test_the_probe_tells_what_the_kernels_do() -> None:
    shares = OPENVINO.probe()
    assert shares["depthwise convolution"] == 1.0
    for kind in ("convolution", "linear"):
        assert (shares[kind] < 0.6) == OPENVINO.saturates()


SIGNED = """
import numpy as np
from ptqbench.backends.openvino.ov_import import import_openvino
from ptqbench.backends.openvino.ov_session import Request, compile_model
import_openvino()
from openvino import Model, opset13 as o

for low, high in ((0, 255), (-128, 127)):
    images = o.parameter([1, 64, 4, 4], np.float32)
    ends = [o.constant(np.float32(end)) for end in (low, high)]
    x = o.fake_quantize(images, *ends, *ends, 256)
    weights = o.convert(o.constant(np.full((64, 64, 1, 1), 127, np.int8)), np.float32)
    scaled = o.multiply(weights, o.constant(np.ones((64, 1, 1, 1), np.float32)))
    y = o.convolution(x, scaled, [1, 1], [0, 0], [0, 0], [1, 1])
    outputs = Request(compile_model(Model([o.result(y)], [images], "layer"), 1)).run(
        np.full((1, 64, 4, 4), high, np.float32)
    )
    print(outputs[0].min() / (high * 127 * 64))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is an instruction set of x86")
def test_signed_activations_saturate_without_vnni_as_unsigned_ones_do() -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    result = subprocess.run(
        [sys.executable, "-c", SIGNED], capture_output=True, text=True, check=True, env=environment
    )
    unsigned, signed = map(float, result.stdout.split())
    assert unsigned < 0.6 and signed < 0.6


# Shipped models


def build(workshop, name: str, folder: Path, **changes: object) -> Artifact:
    recipe = workshop.recipe(name, **changes)
    return OPENVINO.build(workshop.model(name), recipe, workshop.batches(), folder / f"{name}.xml")


def inspected(workshop, name: str, path: Path, record: BuildRecord | None = None, **promise):
    """What the gates say that look inside a file."""
    reference = read_float_graph(workshop.model(name), workshop.calibration[:1])
    provenance = ArtifactProvenance(path, OPENVINO, OPENVINO, record, Promise(**promise))
    images = workshop.calibration[:4]
    inspection = ArtifactInspection(provenance, OPENVINO.load(path), reference, images)
    result = inspection.measure(INSPECTIONS)
    evidence = Evidence(Thresholds(), "avx2", {**result.measurements}, missing=result.missing)
    return {gate: GATES.get(gate)(evidence) for gate in result.measurements}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large", "squeezenet1_1"])
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
    # Two files, and the size is that of both: a byte for each weight, and the structure.
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.bin", f"{name}.xml"]
    assert artifact.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    parameters = sum(p.numel() for p in workshop.model(name).parameters())
    assert artifact.size_bytes < 1.3 * parameters


def test_a_file_computes_what_the_simulation_does(workshop, tmp_path: Path) -> None:
    model, recipe = workshop.model("squeezenet1_1"), workshop.recipe("squeezenet1_1")
    pairing = OPENVINO.pairing if OPENVINO.saturates() else None
    quantized = simulate_model(model, recipe, workshop.batches(), pairing=pairing, phases=Phases())
    artifact = build(workshop, "squeezenet1_1", tmp_path)
    images, _ = workshop.evaluation
    with torch.inference_mode():
        # Rounding the other way now and then is all that is different.
        assert decibels(quantized.simulation.module(images), artifact.load()(images)) > 28
    graph = OPENVINO.layers(artifact.path)
    assert {layer.precision for layer in graph.int8_layers} == {"u8"}
    assert all(layer.kernel.endswith("_I8") for layer in graph.int8_layers)
    assert {layer.activation for layer in graph.int8_layers} == {"relu"}
    assert [layer.path for layer in graph.int8_layers][:2] == [
        "features.0.0",
        "features.3.squeeze.0",
    ]


def test_what_saturates_is_predicted_and_seen(workshop, tmp_path: Path) -> None:
    artifact = build(workshop, "squeezenet1_1", tmp_path, spare_bit="none")
    gate = inspected(workshop, "squeezenet1_1", artifact.path)["saturation"]
    assert gate.verdict is (Verdict.FAIL if OPENVINO.saturates() else Verdict.PASS)
    assert ("differ from exact" in gate.detail) == OPENVINO.saturates()


def test_the_float32_file_is_the_model(workshop, tmp_path: Path) -> None:
    model = workshop.model("mobilenet_v3_large")
    example = workshop.calibration[:1]
    artifact = OPENVINO.build_float(model, "mobilenet_v3_large", example, tmp_path / "f.xml")
    assert Artifact.open(artifact.path).info.precision == "float32"
    loaded = artifact.load()
    for images in (example, workshop.calibration[:5], torch.randn(2, 3, 96, 128)):
        with torch.inference_mode():
            torch.testing.assert_close(loaded(images), model(images), rtol=1e-3, atol=1e-3)
    content = b"".join(path.read_bytes() for path in artifact.files)
    assert b"site-packages" not in content
    parameters = sum(p.numel() for p in model.parameters())
    assert artifact.size_bytes > 4 * parameters  # not float16


class Fixed(nn.Module):
    """Flattens a map whose size its linear layer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).flatten(1))


def small_float(folder: Path) -> tuple[nn.Module, Artifact]:
    torch.manual_seed(0)
    model = Fixed().eval()
    return model, OPENVINO.build_float(model, "m", torch.randn(1, 3, 16, 16), folder / "m.xml")


def test_a_file_takes_any_number_of_images(tmp_path: Path) -> None:
    model, artifact = small_float(tmp_path)
    loaded = artifact.load()
    for count in (1, 7, 2, 1):
        images = torch.randn(count, 3, 16, 16)
        with torch.inference_mode():
            torch.testing.assert_close(loaded(images), model(images))


@pytest.mark.parametrize("threads", [1, 2])
def test_what_does_not_fit_is_an_error_and_no_logits(threads: int, tmp_path: Path) -> None:
    # With one thread OpenVINO's `infer` returns what lay in memory, and may crash afterwards.
    torch.set_num_threads(threads)
    onnx = pytest.importorskip("onnx")
    info, helper = onnx.helper.make_tensor_value_info, onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "shape"], ["logits"])],
        "net",
        [info("images", 1, ["batch", 3, "height", "width"])],
        [info("logits", 1, None)],
        [onnx.numpy_helper.from_array(np.array([1, 48]), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    loaded = OvModel(model.SerializeToString())
    for _ in range(3):
        assert loaded.any_size(torch.ones(1, 3, 4, 4)).shape == (1, 48)
        with pytest.raises(RuntimeError):
            loaded.any_size(torch.ones(2, 3, 4, 4))


def test_a_compiled_model_has_the_settings_that_both_sides_share(tmp_path: Path) -> None:
    _, artifact = small_float(tmp_path)
    loaded = artifact.load()
    assert isinstance(loaded, OvModel)
    for threads in (2, 1):
        torch.set_num_threads(threads)
        for count in (1, 3):
            images = torch.randn(count, 3, 16, 16)
            loaded(images)
            compiled = loaded.compiled(images)
            assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
            assert compiled.get_property("NUM_STREAMS") == 1
            assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
            assert compiled.get_property("ENABLE_CPU_PINNING") is False


# Telemetry

WATCHED = """
import sys
events = []
import openvino_telemetry.main as main
main.Telemetry.__init__ = lambda self, *args, **names: events.append("made")
main.Telemetry.send_event = lambda self, *args, **names: events.append(args)
{importing}
print(len(events), "openvino_telemetry" in sys.modules)
"""


@pytest.mark.parametrize(
    ("importing", "sends"),
    [
        ("import openvino", True),
        ("from ptqbench.backends.openvino.ov_import import import_openvino as run; run()", False),
    ],
    ids=["openvino alone", "ptqbench"],
)
def test_nothing_is_sent(importing: str, sends: bool) -> None:
    pytest.importorskip("openvino_telemetry")
    script = WATCHED.format(importing=importing)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    count, still_there = result.stdout.split()
    assert (int(count) > 0) == sends, result.stdout
    assert still_there == "True"  # it is back for others


# Files


def test_files_that_must_not_be_loaded_are_refused(tmp_path: Path) -> None:
    _, artifact = small_float(tmp_path)
    path, weights = artifact.files
    structure, content = path.read_bytes(), weights.read_bytes()
    assert OPENVINO.recognize(path) == artifact.info

    def refused(text: bytes, bytes_: bytes | None, message: str) -> None:
        path.write_bytes(text)
        weights.unlink(missing_ok=True)
        if bytes_ is not None:
            weights.write_bytes(bytes_)
        with pytest.raises(UserError, match=message) as caught:
            OPENVINO.recognize(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    refused(b"", content, "it is empty")
    refused(b"no model at all", content, "no XML, or not complete")
    refused(structure[: len(structure) // 2], content, "no XML, or not complete")
    refused(b"<html></html>", content, "no model of OpenVINO")
    entity = b'<!DOCTYPE net [<!ENTITY a "aaaa">]>'
    refused(structure.replace(b"<net", entity + b"<net", 1), content, "a document type")
    custom = structure.replace(b'type="Convolution" version="opset1"', b'type="C" version="mine"')
    refused(custom, content, r"custom operators \(mine::C\)")
    refused(structure, None, r"m\.bin, is not beside it")
    refused(structure, content[:-4], "its weights take")
    damaged = bytes([content[0] ^ 1]) + content[1:]
    refused(structure, damaged, "damaged, or of another model")
    foreign = structure.replace(b"ptqbench", b"somebody")
    nothing = np.full(len(content) // 4, np.nan, np.float32).tobytes()
    refused(foreign, nothing.ljust(len(content), b"\0"), "not numbers")
    path.write_bytes(foreign)
    weights.write_bytes(content)
    assert OPENVINO.recognize(path) is None
    with pytest.raises(UserError, match="does not exist"):
        OPENVINO.recognize(tmp_path / "none.xml")
    with pytest.raises(UserError, match=r"Name the \.xml"):
        OPENVINO.recognize(weights)


def test_what_is_left_out_of_the_structure_is_inferred(tmp_path: Path) -> None:
    from openvino import save_model

    from ptqbench.backends.openvino.ov_session import read_model
    from ptqbench.backends.openvino.ov_simplification import simplify
    from ptqbench.inspection.formats import inspect_file

    path = Qdq(limit=127).write(tmp_path / "m.onnx").with_suffix(".xml")
    model = simplify(read_model(path.with_suffix(".onnx")))
    save_model(model, str(path), compress_to_fp16=False)
    whole, images = path.read_bytes(), torch.randn(2, 3, 10, 10)
    logits, inspection = OvModel(path)(images), inspect_file(path)
    path.write_bytes(compact(whole))
    assert len(path.read_bytes()) < 0.7 * len(whole)
    assert torch.equal(OvModel(path)(images), logits)
    assert inspect_file(path).precisions == inspection.precisions
    assert inspect_file(path).findings == inspection.findings
    assert {layer.path for layer in OPENVINO.layers(path).int8_layers} == {
        "stem",
        "depthwise",
        "fc",
    }


def test_an_interrupted_save_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write_bytes(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UserError, match=r"m\.xml cannot be written: No space left"):
        small_float(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_weights_lie_beside_the_structure() -> None:
    assert weights_path(Path("a/b.int8.xml")) == Path("a/b.int8.bin")


def test_a_missing_extra_is_unverified_and_says_what_to_install(
    workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec

    def without(name: str, *more: object) -> object:
        return None if name == "openvino" else find_spec(name, *more)

    monkeypatch.setattr("importlib.util.find_spec", without)
    from ptqbench import validate

    report = validate("squeezenet1_1", "openvino", settings=RunSettings(threads=1))
    assert {gate.verdict for gate in report.cases[0].gates} == {Verdict.UNVERIFIED}
    assert "pip install 'ptqbench[openvino]'" in report.cases[0].gates[0].detail
    assert BACKENDS.get("openvino").refusal(workshop.recipe("resnet18"))
