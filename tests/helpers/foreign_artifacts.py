"""int8 files made as somebody would who never heard of ptqbench: torch.ao and torch.jit alone."""

from __future__ import annotations

import copy
import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    QConfig,
    QConfigMapping,
    convert,
    get_default_qconfig,
    get_default_qconfig_mapping,
    prepare,
)
from torch.ao.quantization.observer import (
    HistogramObserver,
    PerChannelMinMaxObserver,
    default_per_channel_weight_observer,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import ptqbench
from ptqbench import RunSettings, Verdict
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.graph import Graph
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.gates import GATES, Evidence, GateResult
from ptqbench.measurement.artifact_inspection import (
    ArtifactInspection,
    ArtifactProvenance,
    InspectionResult,
)
from ptqbench.measurement.conversion import Promise
from ptqbench.models.import_torchvision import import_torchvision
from ptqbench.settings.thresholds import Thresholds

if TYPE_CHECKING:
    from conftest import Workshop

AVAILABLE = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]
FAST = RunSettings(input_size=64, threads=1)
STATIC = ("fusion", "conversion")
"""What the graph alone tells."""


def needs(*backends: str) -> pytest.MarkDecorator:
    absent = [name for name in backends if name not in AVAILABLE]
    return pytest.mark.skipif(bool(absent), reason=f"no {', '.join(absent)} on this CPU")


def lowered(model: nn.Module, path: Path, way: str = "traced frozen", size: int = 64) -> Path:
    example = torch.zeros(1, 3, size, size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer warnings about scales that do not vary
        if "scripted" in way:
            script = torch.jit.script(model.eval())
        else:
            script = torch.jit.trace(model.eval(), example, check_trace=False)
        if "frozen" in way:
            script = torch.jit.freeze(script.eval())
    torch.jit.save(script, str(path))
    return path


def qconfig(*, reduce_range: bool = True, weight: Any = None) -> QConfig:
    return QConfig(
        activation=HistogramObserver.with_args(reduce_range=reduce_range),
        weight=weight or default_per_channel_weight_observer,
    )


FULL_RANGE = qconfig(reduce_range=False)
AFFINE = qconfig(
    weight=PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_affine)
)


Judged = dict[str, GateResult]


class Strangers:
    """Makes files from the shipped weights; each once."""

    def __init__(self, workshop: Workshop, folder: Path) -> None:
        self.workshop = workshop
        self.folder = folder
        self.eager = functools.cache(self._eager)
        self.float32 = functools.cache(self._float32)

    @property
    def images(self) -> Tensor:
        """Sixteen images to calibrate with, one of each class."""
        return self.workshop.calibration[:16]

    def quantizable(self, name: str = "resnet18") -> nn.Module:
        library = import_torchvision().models.quantization
        model: nn.Module = getattr(library, name)(quantize=False, num_classes=len(CLASSES))
        model.load_state_dict(self.workshop.weights(name).state)
        return model.eval()

    def _eager(
        self,
        engine: str,
        config: QConfig | None = None,
        *,
        name: str = "resnet18",
        fuse: bool = True,
        calibrate: bool = True,
        drift: bool = False,
    ) -> nn.Module:
        """A model as the tutorials do it."""
        torch.backends.quantized.engine = engine
        model, images = self.quantizable(name), self.images
        with torch.no_grad():
            if drift:
                model.train()(images)
                model.eval()
            if fuse:
                model.fuse_model()
            model.qconfig = config or get_default_qconfig(engine)
            prepare(model, inplace=True)
            if calibrate:
                model(images)
            return convert(model, inplace=True)

    def fx(self, engine: str, mapping: QConfigMapping | None = None) -> nn.Module:
        """mobilenet_v2 in graph mode."""
        torch.backends.quantized.engine = engine
        model, images = (
            copy.deepcopy(self.workshop.model("mobilenet_v2")),
            self.workshop.calibration,
        )
        mapping = mapping or get_default_qconfig_mapping(engine)
        with torch.no_grad():
            prepared = prepare_fx(model, mapping, (images[:1],))
            prepared(images)
            return convert_fx(prepared)

    def _float32(self, model: str) -> tuple[Graph, Path]:
        """Graph of the float model, and the model as frozen TorchScript."""
        path = self.folder / f"{model}.float32.pt"
        images = self.workshop.calibration[:1]
        BACKENDS.get(AVAILABLE[0]).build_float(self.workshop.model(model), model, images, path)
        return read_float_graph(self.workshop.model(model), images), path

    def save(self, model: nn.Module, name: str, way: str = "traced frozen") -> Path:
        return lowered(model, self.folder / f"{name}.pt", way)

    def look(self, path: Path, engine: str, names: tuple[str, ...], **promise: Any) -> Judged:
        """What the gates say that look inside a file, without the door around them."""
        model = "mobilenet_v2" if "mobilenet" in path.name else "resnet18"
        reference, float32 = self.float32(model)
        backend = BACKENDS.get(engine)
        provenance = ArtifactProvenance(path, backend, None, None, Promise(**promise), float32)
        inspection = ArtifactInspection(
            provenance, self.workshop.model(model), reference, self.workshop.calibration
        )
        return judged(inspection.measure(names))


def judged(result: InspectionResult) -> Judged:
    evidence = Evidence(Thresholds(), "avx2", {**result.measurements}, missing=result.missing)
    return {name: GATES.get(name)(evidence) for name in result.measurements}


def verdicts(report: ptqbench.Report) -> dict[str, Verdict]:
    (case,) = report.cases
    return {gate.name: gate.verdict for gate in case.gates}


def details(report: ptqbench.Report) -> dict[str, str]:
    (case,) = report.cases
    return {gate.name: gate.detail for gate in case.gates}
