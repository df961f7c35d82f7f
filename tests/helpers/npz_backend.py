"""A second runtime, as small as one can be: ``.npz`` files of integer layers, run by numpy.

It shows that whatever stands behind ``backends.backend.Backend`` is measured and judged. Models
are two linear layers with a ReLU between them. Importing this module registers the backend, in
another process too.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.graph import Graph, IntegerWeights, Operator, Role
from ptqbench.backends.integer_reference import ExactRun, LayerTraffic, QuantizedTensor
from ptqbench.core.phases import Phases
from ptqbench.errors import UserError
from ptqbench.quantization.pairing import Pairing
from ptqbench.recipes import CompletedRecipe, Recipe
from ptqbench.settings.thresholds import Thresholds

FLAT = Recipe(
    model="flat",
    backend="npz",
    fusion=(("first", "relu"),),
    int8_modules=2,
    thresholds=Thresholds(),
)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(768, 128), nn.ReLU(), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.relu(self.first(x.flatten(1))))


@dataclass(frozen=True)
class Layer:
    """A linear layer: int8 with ranges, or float."""

    weight: np.ndarray
    bias: np.ndarray
    relu: bool
    scales: np.ndarray = field(default_factory=lambda: np.ones(1))
    source: tuple[float, int] = (1.0, 0)
    output: tuple[float, int] = (1.0, 0)

    @property
    def is_int8(self) -> bool:
        return self.weight.dtype == np.int8

    def quantized(self, x: np.ndarray) -> np.ndarray:
        scale, zero_point = self.source
        return np.clip(np.round(x / scale) + zero_point, 0, 255).astype(np.uint8)

    def run(self, x: np.ndarray) -> np.ndarray:
        """Integers to integers, or floats to floats."""
        if not self.is_int8:
            y = x @ self.weight.T + self.bias
            return np.maximum(y, 0) if self.relu else y
        step = self.scales * self.source[0]
        total = (x.astype(np.int32) - self.source[1]) @ self.weight.astype(np.int32).T
        total = total + np.round(self.bias / step).astype(np.int64)
        scale, zero_point = self.output
        y = np.round(total * (step / scale)) + zero_point
        return np.clip(y, zero_point if self.relu else 0, 255).astype(np.uint8)

    def represented(self, x: np.ndarray) -> np.ndarray:
        """Numbers as its input's integers stand for them."""
        scale, zero_point = self.source
        return (self.quantized(x).astype(np.float64) - zero_point) * scale

    def simulated(self, x: np.ndarray) -> np.ndarray:
        """In floats what `run` does in integers."""
        y = x @ (self.weight * self.scales[:, None]).T + self.bias
        scale, zero_point = self.output
        steps = np.clip(np.round(y / scale) + zero_point, zero_point if self.relu else 0, 255)
        return (steps - zero_point) * scale


def write(path: Path, layers: Iterable[Layer], info: ArtifactInfo) -> Artifact:
    arrays: dict[str, Any] = {"info": json.dumps(asdict(info))}
    for i, layer in enumerate(layers):
        arrays |= {f"{i}.{name}": value for name, value in vars(layer).items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return Artifact(path, info)


def read(path: Path) -> list[Layer]:
    with np.load(io.BytesIO(path.read_bytes())) as arrays:
        count = len({name.partition(".")[0] for name in arrays.files}) - 1
        return [
            Layer(
                weight=arrays[f"{i}.weight"],
                bias=arrays[f"{i}.bias"],
                relu=bool(arrays[f"{i}.relu"]),
                scales=arrays[f"{i}.scales"],
                source=(float(arrays[f"{i}.source"][0]), int(arrays[f"{i}.source"][1])),
                output=(float(arrays[f"{i}.output"][0]), int(arrays[f"{i}.output"][1])),
            )
            for i in range(count)
        ]


def limits(values: np.ndarray) -> tuple[float, int]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = (high - low) / 255
    return scale, round(-low / scale)


@dataclass(frozen=True)
class NpzBackend:
    name: str = "npz"
    runtime: str = "numpy"
    suffix: str = ".pt"
    on_request: bool = False
    engine: str = "numpy"
    label: str = "numpy"
    targets: tuple[str, ...] = ()
    sums_in_16_bits: tuple[str, ...] = ()
    pairing: Pairing | None = None
    advice: Mapping[str, str] = field(default_factory=dict)

    def availability(self) -> str | None:
        return None

    def refusal(self, recipe: Recipe) -> str | None:
        return recipe.unsupported.get(self.name)

    def saturates(self, instructions: str | None = None) -> bool:
        return False

    def build(
        self,
        model: nn.Module,
        recipe: Recipe | CompletedRecipe,
        calibration: Iterable[Tensor],
        path: Path,
        phases: Phases | None = None,
        calibrations: object = None,
    ) -> Artifact:
        images = torch.cat(list(calibration))
        values = images.flatten(1).numpy()
        source, layers = limits(values), []
        for layer in self._float_layers(model):
            values = layer.run(values)
            output = limits(values)
            scales = np.abs(layer.weight).max(1).astype(np.float64) / 127
            integers = np.round(layer.weight / scales[:, None]).astype(np.int8)
            layers.append(Layer(integers, layer.bias, layer.relu, scales, source, output))
            source = output
        declared = recipe.recipe if isinstance(recipe, CompletedRecipe) else recipe
        info = ArtifactInfo("int8", self.name, self.engine, declared.model, declared.hash)
        return write(path, layers, info)

    def build_float(self, model: Any, name: str, example: Tensor, path: Path) -> Artifact:
        model = getattr(model, "model", model)  # of a traced one
        info = ArtifactInfo("float32", self.name, self.engine, name)
        return write(path, self._float_layers(model), info)

    def _float_layers(self, model: nn.Module) -> list[Layer]:
        values = {name: value.detach().numpy() for name, value in model.named_parameters()}
        names = (("first", True), ("second", False))
        return [Layer(values[f"{n}.weight"], values[f"{n}.bias"], relu) for n, relu in names]

    def float_lowerings(self, artifact: Artifact) -> dict[str, Model]:
        return {"numpy": artifact.load()}

    def load(self, path: Path, threads: int | None = None) -> Model:
        layers = read(path)
        return lambda images: torch.from_numpy(self._run(layers, images)[0])

    def _run(
        self, layers: list[Layer], images: Tensor
    ) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        x = images.flatten(1).numpy()
        seen = []
        if layers[0].is_int8:
            x = layers[0].quantized(x)
        for layer in layers:
            y = layer.run(x)
            seen.append((x, y))
            x = y
        if layers[-1].is_int8:
            scale, zero_point = layers[-1].output
            x = (x.astype(np.float32) - zero_point) * np.float32(scale)
        return x.astype(np.float32), seen

    def simulation(self, path: Path) -> Model:
        layers = read(path)

        def run(images: Tensor) -> Tensor:
            x = layers[0].represented(images.flatten(1).numpy())
            for layer in layers:
                x = layer.simulated(x)
            return torch.from_numpy(x.astype(np.float32))

        return run

    def load_exact(self, path: Path, threads: int | None = None) -> Model | None:
        return None

    def files(self, path: Path) -> tuple[Path, ...]:
        return (path,)

    def active_engine(self) -> str:
        return self.engine

    def layers(self, path: Path) -> Graph:
        return Graph(tuple(self._operator(i, layer) for i, layer in enumerate(read(path))))

    def _operator(self, index: int, layer: Layer) -> Operator:
        value, inputs = f"v{index + 1}", (f"v{index}",)
        bias = torch.from_numpy(layer.bias)
        if not layer.is_int8:
            weight = torch.from_numpy(layer.weight)
            return Operator("dot", Role.FLOAT_LAYER, value, inputs, weight=weight, bias=bias)
        integers = torch.from_numpy(layer.weight)
        scales = torch.from_numpy(layer.scales)
        zero_points = torch.zeros(len(scales), dtype=torch.long)
        return Operator(
            kind="dot8",
            role=Role.INT8_LAYER,
            value=value,
            inputs=inputs,
            scale=layer.output[0],
            zero_point=layer.output[1],
            integers=IntegerWeights(integers, scales, zero_points, True, bias),
            activation="relu" if layer.relu else "",
            kernel="numpy.matmul",
            precision="int8",
        )

    def exact(self, path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
        layers, graph = read(path), self.layers(path)
        _, seen = self._run(layers, images)
        return ExactRun(
            graph,
            tuple(
                LayerTraffic(
                    operator,
                    QuantizedTensor(torch.from_numpy(x), *layer.source),
                    QuantizedTensor(torch.from_numpy(y), *layer.output),
                )
                for operator, layer, (x, y) in zip(graph.operators, layers, seen, strict=True)
                if layer.is_int8
            ),
        )

    def probe(self) -> Mapping[str, float]:
        return {}

    def slow_layers(self, graph: Graph) -> str:
        return ""

    def recognize(self, path: Path) -> ArtifactInfo | None:
        try:
            with np.load(io.BytesIO(path.read_bytes())) as arrays:
                return ArtifactInfo(**json.loads(str(arrays["info"])))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not a file of integer layers: {error}.") from None

    def reason(self, error: Exception) -> str:
        return str(error)


NPZ = NpzBackend()


@contextmanager
def registered() -> Iterator[NpzBackend]:
    BACKENDS.replace(NPZ.name, NPZ)
    yield NPZ
    BACKENDS._entries.pop(NPZ.name, None)


BACKENDS.replace(NPZ.name, NPZ)
