"""Inductor: what its kernels add, what its files contain, and how they are executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.tiny_networks import Tiny, decibels, random_images
from torch import Tensor, nn

from ptqbench import UserError, Verdict
from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend_registry import BACKENDS, recognize
from ptqbench.backends.graph import Role
from ptqbench.backends.inductor import inductor_lowering
from ptqbench.backends.inductor.inductor_backend import INDUCTOR
from ptqbench.backends.inductor.inductor_session import open_program
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.core.phases import Phases
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.float_rivals import FloatRivals
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

if _REASON := INDUCTOR.availability():
    pytest.skip(_REASON, allow_module_level=True)

pytestmark = pytest.mark.usefixtures("torch_settings")


# Kernels

PAIRS = """
import json
import sys
sys.path[:0] = sys.argv[1:]
from helpers.executed_pairs import declared_pairs, executed_pairs
from ptqbench.backends.inductor.inductor_backend import INDUCTOR
from ptqbench.backends.inductor.inductor_probe import layer_outputs
kinds = {}
for name, layer in json.loads(input()).items():
    executed, declared = executed_pairs(layer_outputs, *layer), declared_pairs(INDUCTOR, *layer)
    kinds[name] = len(declared) if executed == declared else "different"
print(json.dumps({"probe": dict(INDUCTOR.probe()), "kinds": kinds}))
"""
WITHOUT_VNNI = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""Lets any x86 CPU be one without VNNI, for oneDNN and for ptqbench."""
SHAPES = {
    "pointwise": ((64, 16, 1, 1), 1),
    "odd channels": ((64, 3, 3, 3), 1),
    "dense": ((256, 8, 3, 3), 1),
    "groups": ((64, 4, 3, 3), 4),
    "two outputs a channel": ((64, 1, 3, 3), 32),
    "depthwise": ((64, 1, 3, 3), 64),
    "depthwise 5×5": ((64, 1, 5, 5), 64),
    "one dimension": ((64, 3, 3), 1),
    "linear": ((64, 17), 1),
}


def test_kernels_without_vnni_add_the_declared_pairs_and_no_others() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PAIRS, str(Path(__file__).parents[1])],
        input=json.dumps(SHAPES),
        env=os.environ | WITHOUT_VNNI,
        capture_output=True,
        text=True,
        check=True,
    )
    content = json.loads(result.stdout)
    assert content["probe"]["convolution"] < 0.6 and content["probe"]["linear"] < 0.6
    assert content["probe"]["depthwise convolution"] == 1.0
    assert "different" not in content["kinds"].values(), content["kinds"]
    assert content["kinds"]["dense"] == 36 and content["kinds"]["depthwise"] == 0


def test_the_probe_tells_what_the_kernels_do_here() -> None:
    shares = INDUCTOR.probe()
    if not INDUCTOR.saturates() and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        assert set(shares.values()) == {1.0}
    if INDUCTOR.saturates():
        assert shares["convolution"] < 0.6 and shares["linear"] < 0.6


# Shipped models


def build(workshop, name: str, folder: Path, **changes: object) -> Artifact:
    recipe = workshop.recipe(name, **changes)
    return INDUCTOR.build(workshop.model(name), recipe, workshop.batches(), folder / f"{name}.pt2")


def inspected(workshop, name: str, path: Path, record: BuildRecord | None = None, **promise):
    """What the gates say that look inside a file."""
    reference = read_float_graph(workshop.model(name), workshop.calibration[:1])
    provenance = ArtifactProvenance(path, INDUCTOR, INDUCTOR, record, Promise(**promise))
    images = workshop.calibration[:4]
    inspection = ArtifactInspection(provenance, INDUCTOR.load(path), reference, images)
    result = inspection.measure(INSPECTIONS)
    evidence = Evidence(Thresholds(), "avx2", {**result.measurements}, missing=result.missing)
    return {gate: GATES.get(gate)(evidence) for gate in result.measurements}


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_1",
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
    ],
)
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
    loaded = artifact.load()
    with torch.inference_mode():
        float32 = workshop.model(name)(images)
        sqnr = decibels(float32, loaded(images))
        torch_sqnr = decibels(float32, workshop.built(name, "onednn").artifact.load()(images))
        assert loaded(torch.randn(3, 3, 96, 128)).shape == (3, 16)
    assert sqnr > torch_sqnr - 1.0
    # ReLU6 and additions are executed within convolutions, pooling on integers.
    kinds = {operator.kind for operator in INDUCTOR.layers(artifact.path).operators}
    alone = {"aten::hardtanh", "aten::relu", "aten::add", "aten::max_pool2d", "aten::clamp"}
    assert kinds.isdisjoint(alone), kinds
    # A byte for each weight, and the structure.
    parameters = sum(p.numel() for p in workshop.model(name).parameters())
    assert artifact.size_bytes < 1.15 * parameters


def test_a_file_computes_what_the_simulation_does(workshop, tmp_path: Path) -> None:
    model, recipe = workshop.model("squeezenet1_1"), workshop.recipe("squeezenet1_1")
    pairing = INDUCTOR.pairing if INDUCTOR.saturates() else None
    quantized = simulate_model(model, recipe, workshop.batches(), pairing=pairing, phases=Phases())
    artifact = build(workshop, "squeezenet1_1", tmp_path)
    images, _ = workshop.evaluation
    with torch.inference_mode():
        expected = quantized.simulation.module(images)
        # Rounding the other way now and then is all that is different.
        assert decibels(expected, artifact.load()(images)) > 28
    graph = INDUCTOR.layers(artifact.path)
    assert {layer.kernel for layer in graph.int8_layers} == {"onednn::qconv_pointwise"}
    assert {layer.activation for layer in graph.int8_layers} == {"relu"}
    assert [layer.path for layer in graph.int8_layers][:2] == [
        "features.0.0",
        "features.3.squeeze.0",
    ]


def test_what_saturates_is_predicted_and_seen(workshop, tmp_path: Path) -> None:
    artifact = build(workshop, "squeezenet1_1", tmp_path, spare_bit="none")
    gate = inspected(workshop, "squeezenet1_1", artifact.path)["saturation"]
    seen = "differ from exact" in gate.detail
    assert (gate.verdict is Verdict.FAIL) == seen
    if INDUCTOR.saturates():
        assert seen
    elif not seen:
        assert "On a CPU without VNNI" in gate.detail
    exact = INDUCTOR.load_exact(artifact.path)
    assert (exact is not None) == INDUCTOR.saturates()


# Small networks


class Fixed(nn.Module):
    """Flattens a map whose size its linear layer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).flatten(1))


class Shuffle(nn.Module):
    """Writes the size of a map into its shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu_()
        number, channels, height, width = x.shape
        x = x.view(number, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)
        return self.fc(x.mean((2, 3)))


def float_file(model: nn.Module, folder: Path) -> Artifact:
    example = torch.randn(1, 3, 16, 16)
    return INDUCTOR.build_float(model, "m", example, folder / "m.pt2")


@pytest.mark.parametrize("kind", [Fixed, Shuffle, Tiny])
def test_the_float32_file_is_the_model(kind: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    artifact = float_file(model, tmp_path)
    assert Artifact.open(artifact.path).info.precision == "float32"
    ways = INDUCTOR.float_lowerings(artifact)
    assert list(ways) == ["lowered", "eager"]
    for loaded in ways.values():
        for shape in ((1, 16, 16), (7, 16, 16), *([] if kind is Fixed else [(2, 20, 28)])):
            images = torch.randn(shape[0], 3, *shape[1:])
            with torch.inference_mode():
                torch.testing.assert_close(loaded(images), model(images), rtol=1e-4, atol=1e-5)
    content = artifact.path.read_bytes()
    assert b"site-packages" not in content and b"nn_module_stack" not in content


def test_a_batch_norm_of_the_float32_file_is_part_of_its_convolution(tmp_path: Path) -> None:
    torch.manual_seed(0)
    artifact = float_file(Shuffle().eval(), tmp_path)
    graph = INDUCTOR.layers(artifact.path)
    assert [operator for operator in graph.operators if operator.is_batch_norm] == []
    assert {layer.path for layer in graph.float_layers} == {"conv", "fc"}


def tiny_file(folder: Path, **changes: object) -> tuple[nn.Module, Artifact]:
    from dataclasses import replace

    from helpers.tiny_networks import TINY

    torch.manual_seed(0)
    model = Tiny().eval()
    recipe = replace(TINY, backend="inductor", **changes)
    images = random_images()
    return model, INDUCTOR.build(model, recipe, images.split(16), folder / "tiny.pt2")


def test_torch_itself_loads_the_file_and_computes_the_same(tmp_path: Path) -> None:
    _, artifact = tiny_file(tmp_path)
    program = torch.export.load(artifact.path).module()
    images = random_images()[:9]
    with torch.inference_mode():
        expected = program(images)
        assert decibels(expected, artifact.load()(images)) > 35
        unlowered = artifact.simulation()(images)
    torch.testing.assert_close(unlowered, expected, rtol=0, atol=0)


def test_an_addition_within_a_convolution_is_named_as_such(tmp_path: Path) -> None:
    _, artifact = tiny_file(tmp_path)
    graph = INDUCTOR.layers(artifact.path)
    conv1, conv2, fc = graph.int8_layers
    assert [layer.path for layer in (conv1, conv2, fc)] == ["conv1.0", "conv2", "fc"]
    assert conv1.scale is not None and conv2.scale is None and conv2.activation == ""
    addition = graph.only_reader(conv2)
    assert addition is not None and addition.role is Role.OTHER
    assert addition.kind == "onednn::qconv2d_pointwise addition"
    run = INDUCTOR.exact(artifact.path, random_images()[:4])
    assert [each.layer.value for each in run.traffic] == [o.value for o in graph.int8_layers]
    # What it read comes from the first layer: an addition in place has not changed it.
    first, second, _ = run.traffic
    torch.testing.assert_close(second.source.integers, first.output.integers, rtol=0, atol=0)


def test_a_loaded_file_has_the_threads_that_were_asked_for(tmp_path: Path) -> None:
    _, artifact = tiny_file(tmp_path)
    images = random_images()[:2]
    for threads in (2, 1):
        artifact.load(threads)(images)
        assert torch.get_num_threads() == threads


# Files


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """An archive with members changed, or left out."""
    whole = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(whole, "w") as target:
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                target.writestr(name, content)
    return whole.getvalue()


def program_with(path: Path, old: bytes, new: bytes) -> bytes:
    """An archive with a text in its program replaced."""

    def change(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        assert old in content
        return content.replace(old, new, 1)

    return rewritten(path, change)


def with_member(path: Path, name: str, content: bytes) -> bytes:
    whole = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(whole, "a") as target:
        target.writestr(f"archive/{name}", content)
    return whole.getvalue()


class Harmful:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.system, ("touch harmed",)


def test_files_that_must_not_be_loaded_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, artifact = tiny_file(tmp_path)
    path, content = artifact.path, artifact.path.read_bytes()
    assert INDUCTOR.recognize(path) == artifact.info

    def refused(changed: bytes, message: str) -> None:
        path.write_bytes(changed)
        with pytest.raises(UserError, match=message) as caught:
            INDUCTOR.recognize(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        path.write_bytes(content)

    refused(b"", "it is no archive")
    refused(content[: len(content) // 2], "damaged or not complete")
    (tmp_path / "state.pt").write_bytes(b"")
    torch.save({"a": torch.ones(1)}, tmp_path / "state.pt")
    refused((tmp_path / "state.pt").read_bytes(), "without such a program")
    library = "data/aotinductor/model/model.wrapper.so"
    refused(with_member(path, library, b"ELF"), "native code for a CPU")
    refused(with_member(path, "data/strange", b"x"), r"parts that are not known \(data/strange\)")
    harmful = pickle.dumps(Harmful())
    config = b'{"config": {"c": {"path_name": "custom_obj_0", "is_param": false, "use_pickle": '
    config += b'true, "tensor_meta": null}}}'

    def custom(name: str, member: bytes) -> bytes:
        return config if name.endswith("constants_config.json") else member

    path.write_bytes(rewritten(path, custom))
    refused(with_member(path, "data/constants/custom_obj_0", harmful), "c is pickled")
    quantize = b"torch.ops.quantized_decomposed.quantize_per_tensor.default"
    refused(program_with(path, quantize, b"torch.ops.mine.quantize.default"), "torch's own")
    refused(program_with(path, quantize, b"torch.ops.aten.from_file.default"), "torch's own")
    refused(program_with(path, quantize, b"os.system"), "torch's own")
    refused(program_with(path, b'"schema_version": {"major": 8', b'"schema_version": {"major": 9'),
            "a form that is not known")  # fmt: skip
    refused(program_with(path, b'"nodes"', b'"knots"'), "incomplete or damaged")
    refused(rewritten(path, lambda n, c: None if n.endswith("weight_0") else c), "missing in it")
    refused(rewritten(path, lambda n, c: c[:4] if n.endswith("weight_0") else c), "not complete")

    def without_numbers(name: str, member: bytes) -> bytes:
        return b"\xff" * len(member) if name.endswith("data/weights/weight_0") else member

    refused(rewritten(path, without_numbers), "not numbers")
    damaged = bytearray(content)
    damaged[content.index(b"weight_0") + 70] ^= 1
    refused(bytes(damaged), "checksum|damaged")
    with pytest.raises(UserError, match="does not exist"):
        INDUCTOR.recognize(tmp_path / "none.pt2")
    with pytest.raises(UserError, match=r"its name has no \.pt2"):
        INDUCTOR.recognize(tmp_path / "state.pt")
    assert not (tmp_path / "harmed").exists()


def test_pickled_examples_in_a_file_are_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, artifact = tiny_file(tmp_path)
    harmful = pickle.dumps(Harmful())

    def change(name: str, content: bytes) -> bytes:
        return harmful if name.startswith("data/sample_inputs/") else content

    artifact.path.write_bytes(rewritten(artifact.path, change))
    assert recognize(artifact.path).runtime == "inductor"
    assert artifact.load()(random_images()[:2]).shape == (2, 4)
    assert not (tmp_path / "harmed").exists()


def test_an_interrupted_save_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write_bytes(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UserError, match=r"m\.pt2 cannot be written: No space left"):
        float_file(Fixed().eval(), tmp_path)
    assert list(tmp_path.iterdir()) == []


# What another release of torch, or another CPU, does


def test_another_cpu_or_release_is_unavailable_with_a_reason(
    workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("platform.machine", lambda: "aarch64")
        assert "x86 CPUs alone, and this is aarch64" in str(INDUCTOR.availability())
    with monkeypatch.context() as patch:
        patch.setattr(inductor_lowering, "_OPERATORS", ("qconv_of_tomorrow",))
        assert "no operator onednn.qconv_of_tomorrow" in str(INDUCTOR.availability())
        assert INDUCTOR.refusal(workshop.recipe("resnet18"))
    with monkeypatch.context() as patch:
        from ptqbench.backends.inductor import inductor_backend

        patch.setattr(inductor_backend, "_PASSES", "torch._inductor.fx_passes.of_tomorrow")
        assert "does not have the passes of Inductor" in str(INDUCTOR.availability())


def test_passes_with_another_name_are_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, artifact = tiny_file(tmp_path)
    inductor_lowering._passes.cache_clear()
    monkeypatch.setattr(
        inductor_lowering, "_PASSES", (("torch._inductor.constant_folding", "of_tomorrow"),)
    )
    with pytest.raises(UserError, match="does not have the passes of Inductor that ptqbench knows"):
        artifact.load()
    inductor_lowering._passes.cache_clear()


def test_nobody_who_does_not_ask_for_it_waits_for_it() -> None:
    runtimes = []

    def create(backend: object) -> FloatReference:
        runtimes.append(backend.runtime)  # type: ignore[attr-defined]
        raise UserError("not here")

    FloatRivals(create).everywhere()
    assert "torch" in runtimes and "inductor" not in runtimes
    assert BACKENDS.get("inductor").on_request


def test_programs_have_their_shapes_and_names(tmp_path: Path) -> None:
    program = open_program(float_file(Fixed().eval(), tmp_path).path)
    assert program.shape == (2, 3, 16, 16)
    assert set(program.names.values()) == {
        *("conv.weight", "conv.bias", "linear.weight", "linear.bias")
    }
