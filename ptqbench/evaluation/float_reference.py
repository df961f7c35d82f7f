"""The float32 side of a model's cases, shared by all backends."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from functools import cached_property

import torch
from torch import Tensor

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend, Model
from ptqbench.backends.graph import Graph
from ptqbench.backends.traced_model import TracedModel, read_float_graph
from ptqbench.core.phases import Phases
from ptqbench.core.step_errors import step
from ptqbench.evaluation.subject import LatencyInput, Subject
from ptqbench.measurement.fastest import pick_fastest, runnable
from ptqbench.measurement.macs import CountedModel, Macs

_ADVICE = (
    "The float32 side is traced, saved, and run on other images: what {module} does "
    "must not depend on Python objects or values that change."
)


class FloatReference:
    """The float32 model that int8 is compared with; each part is computed once, when needed.

    Args:
        subject: The model.
        backend: Any backend of the runtime; float32 does not depend on the engine.
        phases: Where time is counted.
        artifact: The float32 artifact, if it is built already.
    """

    def __init__(
        self, subject: Subject, backend: Backend, phases: Phases, artifact: Artifact | None = None
    ) -> None:
        self._subject = subject
        self._backend = backend
        self._phases = phases
        self._artifact = artifact
        self._counted = CountedModel(subject.model)

    @property
    def latency(self) -> LatencyInput:
        """The input at which latency is measured."""
        return self._subject.latency

    @cached_property
    def _traced(self) -> TracedModel:
        # Traced once: the file is built from it, and the graph read in it.
        with self._step("Tracing"):
            return TracedModel(self._subject.model, self._subject.inspection_images()[:1])

    @cached_property
    def artifact(self) -> Artifact:
        """The float32 artifact."""
        if self._artifact is not None:
            return self._artifact
        with self._phases.measure("lower float32"):
            model = self._subject.recipe.model
            path = self._subject.float_path(self._backend)
            example = self._subject.inspection_images()[:1]
            with self._step("Lowering"):
                return self._backend.build_float(self._traced, model, example, path)

    @cached_property
    def _lowerings(self) -> dict[str, Model]:
        artifact = self.artifact
        with self._phases.measure("lower float32"), self._step("Lowering"):
            return self._backend.float_lowerings(artifact)

    @cached_property
    def times_ms(self) -> dict[str, float]:
        """Median time of a call in ms of each lowering, and of the module itself (``eager``)."""
        latency = self._subject.latency
        example = latency.example()
        lowerings = self._lowerings
        measure = self._phases.measure("choose the float32 lowering", forward=True)
        with measure, self._step("Timing"):
            candidates = runnable(lowerings, example)
            candidates["eager"] = self._counted
            _, times = pick_fastest(candidates, example, threads=latency.threads, rounds=5)
        return times

    def _step(self, name: str) -> AbstractContextManager[None]:
        """Name a step in what torch's errors become."""
        model = self._subject.recipe.model
        return step(f"{name} of the float32 {model}", _ADVICE, self._subject.model)

    @cached_property
    def graph(self) -> Graph:
        """The graph of the float model as it is quantized, with module paths."""
        with self._phases.measure("read the float graph"):
            canonical = self._subject.quantizable()
            if canonical is self._subject.model:
                return self._traced.graph
            with self._step("Tracing"):
                return read_float_graph(canonical, self._subject.inspection_images()[:1])

    @cached_property
    def macs(self) -> Macs:
        """Multiply-adds of one image at the input of the latency; warming up counted them."""
        return self._counted.macs(self._subject.latency.example())

    @property
    def lowering(self) -> str:
        """Name of the fastest lowering; the module itself is not one that ships."""
        return min(self._lowerings, key=lambda name: self.times_ms.get(name, math.inf))

    @property
    def fastest(self) -> Model:
        """The fastest lowering, which int8 has to beat."""
        return self._lowerings[self.lowering]

    @cached_property
    def predictor(self) -> Model:
        """The fastest lowering that can run the images, whose size is not that of the latency."""
        image = self._subject.inspection_images()[:1]
        models = runnable({self.lowering: self.fastest}, image)
        return models.get(self.lowering, next(iter(self._lowerings.values())))


def as_probabilities(model: Model) -> Model:
    """Return a model that gives probabilities where another one gives logits.

    Args:
        model: float32; what it gives stays as it is if it is probabilities already.
    """

    def run(images: Tensor) -> Tensor:
        outputs = model(images)
        ones = torch.ones(len(outputs))
        if (outputs >= 0).all() and torch.allclose(outputs.sum(1), ones, atol=1e-3):
            return outputs
        return outputs.softmax(1)

    return run
