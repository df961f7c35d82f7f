"""ExecuTorch: what its files contain, how they are executed, and files of strangers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helpers.small_artifacts import noise, settle
from helpers.tiny_networks import decibels
from torch import Tensor, nn

from ptqbench import RunSettings, UserError, Verdict, validate
from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import SimulationError
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.executorch.et_backend import EXECUTORCH
from ptqbench.backends.executorch.et_export import with_integers
from ptqbench.backends.executorch.et_file import CONTENT
from ptqbench.backends.executorch.et_flatbuffer import MalformedError
from ptqbench.backends.executorch.et_program import read_program
from ptqbench.backends.executorch.et_session import EtModel
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.core.phases import Phases
from ptqbench.data.image_set import Data
from ptqbench.gates import GATES, Evidence
from ptqbench.measurement.artifact_inspection import (
    INSPECTIONS,
    ArtifactInspection,
    ArtifactProvenance,
)
from ptqbench.measurement.conversion import Promise
from ptqbench.measurement.saturation import compare
from ptqbench.quantization.build import simulate_model
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.recipes import Recipe
from ptqbench.settings.thresholds import Thresholds

if _REASON := EXECUTORCH.availability():
    pytest.skip(_REASON, allow_module_level=True)

from helpers.executorch_strangers import quantized

pytestmark = pytest.mark.usefixtures("torch_settings")

LAYERS = ("stem", "conv1", "conv2", "depthwise", "fc")
RECIPE = Recipe("network", "executorch", None, None, Thresholds(), observer="minmax")


class Network(nn.Module):
    """A stem, a shortcut, a depthwise convolution, a mean over the map and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv1, self.conv2 = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.fc = nn.Linear(16, 10)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.stem(x)))
        x = self.relu(x + self.conv2(self.relu(self.conv1(x))))
        return self.fc(self.depthwise(x).mean((2, 3)))


@functools.cache
def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return settle(Network(), noise())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("built") / "network.pte"
    return EXECUTORCH.build(network(), RECIPE, [noise()], path)


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("floats") / "network.pte"
    return EXECUTORCH.build_float(network(), "network", noise(), path)


def inspected(model: nn.Module, path: Path, images: Tensor, record=None, float32=None, **promise):
    """What the gates say that look inside a file."""
    reference = read_float_graph(model, images[:1])
    provenance = ArtifactProvenance(
        path, EXECUTORCH, EXECUTORCH, record, Promise(**promise), float32
    )
    inspection = ArtifactInspection(provenance, EXECUTORCH.load(path), reference, images[:4])
    result = inspection.measure(INSPECTIONS)
    evidence = Evidence(Thresholds(), "avx2", {**result.measurements}, missing=result.missing)
    return {gate: GATES.get(gate)(evidence) for gate in result.measurements}


# What is built


def test_all_of_it_is_int8_and_exact(built: Artifact) -> None:
    record = BuildRecord.from_dict(built.info.build)
    gates = inspected(network(), built.path, noise(), record, int8_layers=5, per_channel=True)
    assert {gate.verdict for gate in gates.values()} == {Verdict.PASS}, gates
    assert "5 int8 layers equal exact integer arithmetic" in gates["saturation"].detail
    assert "s8 by s8 cannot saturate" in gates["saturation"].detail
    graph = EXECUTORCH.layers(built.path)
    assert [layer.kind for layer in graph.int8_layers] == [
        *("Conv2d", "Conv2d", "Conv2d", "DepthwiseConv2d", "FullyConnected")
    ]
    assert {layer.integers.integers.min().item() for layer in graph.int8_layers} <= {-127, -126}
    assert not graph.float_layers and not EXECUTORCH.slow_layers(graph)
    assert {operator.kernel for operator in graph.operators} == {"XNNPACK"}


def test_a_file_computes_what_the_simulation_does(built: Artifact) -> None:
    quantized_model = simulate_model(network(), RECIPE, [noise()], pairing=None, phases=Phases())
    simulation = quantized_model.simulation
    images = torch.randn(16, 3, 16, 16)
    with torch.inference_mode():
        expected, logits = simulation.module(images), built.load()(images)
        signed = with_integers(simulation.module, simulation.weights)(images)
    # s8 instead of u8 are the same steps; rounding the other way now and then is all that differs.
    torch.testing.assert_close(signed, expected)
    assert decibels(expected, logits) > 28
    assert decibels(network()(images).detach(), logits) > 20


def test_a_file_is_written_out_in_float32(built: Artifact, stranger: Path) -> None:
    simulation = EXECUTORCH.simulation(built.path)
    images = torch.randn(8, 3, 16, 16)
    with torch.inference_mode():
        assert decibels(simulation(images), built.load()(images)) > 28
        assert decibels(network()(images), simulation(images)) > 20
    with pytest.raises(SimulationError, match=r"ExecuTorch's own operators \(aten::mean"):
        EXECUTORCH.simulation(stranger)


def test_the_traffic_is_that_of_the_file(built: Artifact) -> None:
    run = EXECUTORCH.exact(built.path, noise()[:2])
    assert not run.error and len(run.traffic) == 5
    assert [compare(traffic)[1] for traffic in run.traffic] == [0] * 5
    first, last = run.traffic[0], run.traffic[-1]
    assert first.source.integers.shape == (2, 3, 16, 16)
    steps = (noise()[:2] / first.source.scale).round() + first.source.zero_point
    assert torch.equal(first.source.integers, steps.clamp(-128, 127).to(torch.int8))
    logits = (last.output.integers.float() - last.output.zero_point) * last.output.scale
    torch.testing.assert_close(logits, built.load()(noise()[:2]))


def test_the_probe_tells_what_the_kernels_do() -> None:
    assert not EXECUTORCH.saturates() and not EXECUTORCH.sums_in_16_bits
    assert set(EXECUTORCH.probe().values()) == {1.0}


def test_the_float32_file_is_the_model(floats: Artifact) -> None:
    assert Artifact.open(floats.path).info.precision == "float32"
    loaded = floats.load()
    for images in (noise()[:1], noise()[:5], torch.randn(2, 3, 40, 24)):
        with torch.inference_mode():
            torch.testing.assert_close(loaded(images), network()(images), rtol=1e-3, atol=1e-3)
    assert {each.kernel for each in EXECUTORCH.layers(floats.path).operators} == {"XNNPACK"}
    assert b"site-packages" not in floats.path.read_bytes()


def test_too_large_images_end_with_a_sentence(built: Artifact) -> None:
    with pytest.raises(RuntimeError, match=r"images of at most 3×1024×1024, not 3×2048×16"):
        built.load()(torch.zeros(1, 3, 2048, 16))


def test_files_follow_the_number_of_threads(built: Artifact, floats: Artifact) -> None:
    # One pool serves all files: those that were loaded before it changed must still run.
    from ptqbench.backends.executorch.et_import import runtime

    models = [floats.load(), built.load(threads=2), built.load()]
    expected = [model(noise()) for model in models]
    for threads in (2, 1, 2):
        torch.set_num_threads(threads)
        for model, logits in zip(models, expected, strict=True):
            assert torch.equal(model(noise()), logits)
            assert isinstance(model, EtModel)
        assert runtime()._threadpool_get_thread_count() == threads


@pytest.mark.slow
def test_a_shipped_recipe_is_right_inside_and_as_close_as_under_torch(
    workshop, tmp_path: Path
) -> None:
    name = "squeezenet1_1"
    model, recipe = workshop.model(name), workshop.recipe(name)
    artifact = EXECUTORCH.build(model, recipe, workshop.batches(), tmp_path / "m.pte")
    record = BuildRecord.from_dict(artifact.info.build)
    images, _ = workshop.evaluation
    promise = {"int8_layers": recipe.int8_modules, "per_channel": True}
    gates = inspected(model, artifact.path, workshop.calibration, record, **promise)
    assert {gate.verdict for gate in gates.values()} == {Verdict.PASS}, gates
    loaded = artifact.load()
    with torch.inference_mode():
        float32 = model(images)
        torch_logits = workshop.built(name, "onednn").artifact.load()(images)
        assert decibels(float32, loaded(images)) > decibels(float32, torch_logits) - 1.0
    assert loaded(torch.zeros(1, 3, 224, 224)).shape == (1, 16)
    parameters = sum(p.numel() for p in model.parameters())
    assert artifact.size_bytes < 1.3 * parameters


# Files of strangers


@dataclass(frozen=True)
class Noise:
    """Images of noise with labels of no meaning."""

    start: int
    count: int
    name: str = "noise"
    classes: tuple[str, ...] = tuple("0123456789")
    labelled: bool = True

    @property
    def limit(self) -> int:
        return self.count

    def _image(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.start + index)
        return torch.randn((1, 3, 16, 16), generator=generator)

    def batches(self, start: int, stop: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(start, stop, size):
            indices = range(first, min(first + size, stop))
            yield torch.cat([self._image(i) for i in indices]), torch.tensor(indices) % 10

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        return (f"{self.start + i}" for i in range(start, stop))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized(network(), noise(), tmp_path_factory.mktemp("stranger") / "theirs.pte")


def pooled() -> nn.Module:
    """The network with a mean that XNNPACK executes as it is written."""

    class Pooled(Network):
        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.bn(self.stem(x)))
            x = self.relu(x + self.conv2(self.relu(self.conv1(x))))
            return self.fc(self.depthwise(x).mean((2, 3), keepdim=True).flatten(1))

    model = Pooled()
    model.load_state_dict(network().state_dict())
    return model.eval()


def test_a_file_of_its_own_script_passes_all_gates(stranger: Path) -> None:
    data = Data("noise", Noise(0, 16), Noise(16, 64))
    report = validate(
        network(), stranger, data, backend="executorch", settings=RunSettings(threads=1)
    )
    by_gate = {gate.name: gate for gate in report.cases[0].gates}
    for name in ("fusion", "conversion", "fidelity", "saturation"):
        assert by_gate[name].verdict is Verdict.PASS, by_gate[name].detail
    assert EXECUTORCH.recognize(stranger) is None
    # Its exporter leaves a mean that drops its dimensions to a portable operator.
    assert "1 aten::mean" in EXECUTORCH.slow_layers(EXECUTORCH.layers(stranger))


DEFECTS = {
    "not calibrated": (
        {"calibrate": False, "is_per_channel": False},
        "default scale 1 and zero point 0",
    ),
    "one scale for all channels": (
        {"is_per_channel": False},
        "weight scale for all channels: stem",
    ),
    "a layer left float": ({"without": "conv2"}, "not int8: conv2"),
    "not delegated": ({"delegate": False}, "lower the file with XnnpackPartitioner"),
    "ranges of each image": ({"is_dynamic": True}, "computed anew for every image"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_conversion_gate_names_a_defect(defect: str, tmp_path: Path) -> None:
    options, words = DEFECTS[defect]
    path = quantized(pooled(), noise(), tmp_path / "theirs.pte", **options)
    promise = {"int8_layers": 5, "per_channel": True}
    gate = inspected(network(), path, noise(), **promise)["conversion"]
    assert gate.verdict is Verdict.FAIL and words in gate.detail, gate.detail


def test_another_networks_weights_belong_to_no_layer(stranger: Path) -> None:
    gate = inspected(network(seed=1), stranger, noise(), int8_layers=5)["conversion"]
    assert gate.verdict is Verdict.FAIL
    assert "5" in gate.detail and "weights" in gate.detail, gate.detail


def test_weights_are_compared_with_the_float32_file(
    stranger: Path, floats: Artifact, tmp_path: Path
) -> None:
    gate = inspected(network(), stranger, noise(), float32=floats.path)["fusion"]
    assert gate.verdict is Verdict.PASS, gate.detail
    assert "in 5 layers the int8 weights are the float weights" in gate.detail
    other = copy.deepcopy(network())
    with torch.no_grad():
        other.fc.bias += 0.5
    artifact = EXECUTORCH.build_float(other, "other", noise(), tmp_path / "other.pte")
    gate = inspected(other, stranger, noise(), float32=artifact.path)["fusion"]
    assert gate.verdict is Verdict.UNVERIFIED and "fc (bias off by " in gate.detail, gate.detail


# Damaged files


def test_files_that_must_not_be_loaded_are_refused(built: Artifact, tmp_path: Path) -> None:
    content, path = built.path.read_bytes(), tmp_path / "m.pte"
    assert EXECUTORCH.recognize(built.path) == built.info

    def refused(bytes_: bytes, message: str) -> None:
        path.write_bytes(bytes_)
        with pytest.raises(UserError, match=message) as caught:
            EXECUTORCH.recognize(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    refused(b"", "it is empty")
    refused(b"no program at all, whatever", "no program of ExecuTorch")
    for share in (0.1, 0.5, 0.99):
        refused(content[: int(share * len(content))], "it ends too early")
    refused(content.replace(b"XnnpackBackend", b"PhantomBackend"), "PhantomBackend, which is not")
    integers = EXECUTORCH.layers(built.path).int8_layers[1].integers.integers
    stored = integers.permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    assert content.count(stored) == 1
    refused(content.replace(stored, bytes(len(stored))), "not those that it was written with")
    scales = EXECUTORCH.layers(built.path).int8_layers[1].integers.scales.float().numpy().tobytes()
    nothing = torch.full((len(scales) // 4,), float("nan")).numpy().tobytes()
    foreign = content.replace(scales, nothing).replace(CONTENT.encode(), b"x" * len(CONTENT))
    refused(foreign, "not numbers")
    with pytest.raises(UserError, match="does not exist"):
        EXECUTORCH.recognize(tmp_path / "none.pte")
    with pytest.raises(UserError, match=r"has no \.pte"):
        EXECUTORCH.recognize(built.path.with_suffix(".bin"))


def test_whatever_is_in_a_file_reading_it_ends(built: Artifact) -> None:
    content = bytearray(built.path.read_bytes())
    generator = torch.Generator().manual_seed(0)
    head, refusals = min(len(content), 4096), 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in torch.randint(8, head, (4,), generator=generator).tolist():
            damaged[place] = int(torch.randint(0, 256, (1,), generator=generator))
        try:
            read_program(bytes(damaged))
        except MalformedError:
            refusals += 1
    # Anything else that is raised fails here, as does a reader that sees no damage.
    assert refusals > 30


def test_a_missing_extra_is_unverified_and_says_what_to_install(
    workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec

    def without(name: str, *more: object) -> object:
        return None if name == "executorch" else find_spec(name, *more)

    monkeypatch.setattr("importlib.util.find_spec", without)
    report = validate("squeezenet1_1", "executorch", settings=RunSettings(threads=1))
    assert {gate.verdict for gate in report.cases[0].gates} == {Verdict.UNVERIFIED}
    assert "pip install 'ptqbench[executorch]'" in report.cases[0].gates[0].detail
    assert BACKENDS.get("executorch").refusal(workshop.recipe("resnet18"))
