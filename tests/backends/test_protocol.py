"""Every runtime is used through one protocol: no room looks behind it, and a second one works."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ptqbench
from ptqbench import RunSettings, UserError, Verdict, validate
from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS, recognize
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.data.image_set import Data
from ptqbench.gates import GATES, Evidence
from ptqbench.measurement.artifact_inspection import ArtifactInspection, ArtifactProvenance
from ptqbench.measurement.conversion import Promise
from ptqbench.settings.thresholds import Thresholds

PACKAGE = Path(ptqbench.__file__).parent
ABOVE = ("measurement", "gates", "evaluation", "testing", "reporting")
DOORS = ("api.py", "suite.py", "pytest_plugin.py")
BEHIND = ("torch.backends.quantized", "quantized::", "aten::", "torch.jit", "engine_set")
BEHIND += ("ScriptModule", "supported_engines", "TorchBackend")


def files() -> list[Path]:
    rooms = [path for room in ABOVE for path in sorted((PACKAGE / room).rglob("*.py"))]
    return [*rooms, *(PACKAGE / door for door in DOORS)]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_room_above_asks_which_runtime_it_talks_to(path: Path) -> None:
    source = path.read_text("utf-8")
    assert [word for word in BEHIND if word in source] == []
    modules = [
        node.module or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
    ]
    assert [name for name in modules if "torch_engines" in name] == []


@pytest.mark.parametrize("backend", list(BACKENDS), ids=BACKENDS.names())
def test_backends_have_every_member_of_the_protocol(backend: Backend) -> None:
    members = [name for name, _ in inspect.getmembers(Backend) if not name.startswith("_")]
    assert len(members) > 15
    assert [name for name in members if not hasattr(backend, name)] == []


# A second runtime


@pytest.fixture
def npz() -> Iterator[ModuleType]:
    # Not imported above: importing it registers the backend.
    module = importlib.import_module("helpers.npz_backend")
    with module.registered():
        yield module


class Noise:
    """Images of noise with labels that mean nothing."""

    name, classes, labelled = "noise", tuple("0123456789"), True

    def __init__(self, start: int, count: int) -> None:
        self.count = self.limit = count
        self._start = start

    def batches(self, start: int, stop: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(start, stop, size):
            indices = torch.arange(first, min(first + size, stop))
            yield images(len(indices), self._start + first), indices % 10

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        return (f"{self._start + i}" for i in range(start, stop))


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def model(npz: ModuleType) -> Any:
    torch.manual_seed(0)
    return npz.Flat().eval()


def test_a_second_runtime_goes_through_every_gate(npz: ModuleType, tmp_path: Path) -> None:
    data = Data("noise", Noise(0, 32), Noise(100, 64))
    settings = RunSettings(threads=1, artifacts=str(tmp_path))
    report = validate(model(npz), "npz", data, recipe=npz.FLAT, settings=settings)
    (case,) = report.cases
    gates = {gate.name: gate for gate in case.gates}
    for name in ("fusion", "conversion", "size", "fidelity", "saturation"):
        assert gates[name].verdict is Verdict.PASS, gates[name].detail
    assert gates["fusion"].observed == 1 and gates["conversion"].observed == 2
    assert "under numpy gives identical logits for 4 images" in gates["fidelity"].detail
    assert "2 int8 layers equal exact integer arithmetic" in gates["saturation"].detail
    assert gates["agreement"].n == 64
    assert case.facts["engine"] == "numpy"
    # The file that was left opens as any artifact does.
    (path,) = tmp_path.glob("*-npz.int8.pt")
    artifact = Artifact.open(path)
    assert artifact.info.backend == "npz"
    assert artifact.load()(images(2)).shape == (2, 10)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="is not a file of integer layers"):
        recognize(path)


def inspected(npz: ModuleType, path: Path) -> dict[str, Any]:
    """What the gates say that look inside a file."""
    float32 = model(npz)
    provenance = ArtifactProvenance(path, npz.NPZ, npz.NPZ, None, Promise(2, per_channel=True))
    reference = read_float_graph(float32, images(1))
    inspection = ArtifactInspection(provenance, npz.NPZ.load(path), reference, images(4))
    result = inspection.measure(["fusion", "conversion", "saturation"])
    evidence = Evidence(Thresholds(), "avx2", {**result.measurements}, missing=result.missing)
    return {name: GATES.get(name)(evidence) for name in result.measurements}


def test_planted_defects_of_a_second_runtime_are_found(
    npz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = npz.NPZ.build(model(npz), npz.FLAT, [images(32)], tmp_path / "sound")
    layers = npz.read(sound.path)
    float_layers = npz.NPZ._float_layers(model(npz))

    without_relu = [replace(layers[0], relu=False, output=(0.05, 99)), layers[1]]
    gates = inspected(npz, npz.write(tmp_path / "a", without_relu, sound.info).path)
    assert gates["fusion"].verdict is Verdict.FAIL
    assert "first: the relu that follows it in float is lost" in gates["fusion"].detail

    gates = inspected(npz, npz.write(tmp_path / "b", float_layers, sound.info).path)
    assert gates["conversion"].verdict is Verdict.FAIL
    assert "not int8: first, second" in gates["conversion"].detail

    def saturating(layer: Any, x: np.ndarray) -> np.ndarray:
        return np.minimum(run(layer, x), 150)

    run = npz.Layer.run
    monkeypatch.setattr(npz.Layer, "run", saturating)
    gates = inspected(npz, sound.path)
    assert gates["saturation"].verdict is Verdict.FAIL
    assert "2 of 2 int8 layers differ from exact" in gates["saturation"].detail


def test_a_runtime_that_shows_no_traffic_is_not_taken_for_exact(
    npz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = npz.NPZ.build(model(npz), npz.FLAT, [images(32)], tmp_path / "sound")
    exact = npz.NpzBackend.exact

    def blind(*args: Any) -> Any:
        return replace(exact(*args), traffic=(), error="this runtime shows nothing")

    monkeypatch.setattr(npz.NpzBackend, "exact", blind)
    gate = inspected(npz, sound.path)["saturation"]
    assert gate.verdict is Verdict.UNVERIFIED
    assert "this runtime shows nothing" in gate.detail
