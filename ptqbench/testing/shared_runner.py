"""Cases behind the tests: artifacts, logits and measurements are made once and shared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.process_state import process_unchanged
from ptqbench.backends.registry import BACKENDS
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.names import safe_file_name
from ptqbench.core.phases import Phases
from ptqbench.core.progress import silent
from ptqbench.data.image_set import broken_in
from ptqbench.errors import UserError
from ptqbench.evaluation.case import Subject, build_int8, calibration_batches
from ptqbench.evaluation.fields import broken_facts, facts_of, metrics_of
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.result import CaseResult
from ptqbench.evaluation.subject import open_subject
from ptqbench.gates import Evidence, evaluate
from ptqbench.recipes import RECIPES
from ptqbench.settings.requests import CaseRequest
from ptqbench.settings.thresholds import Thresholds
from ptqbench.testing.measures import MEASURES, Bench, NotMeasured, needs_of
from ptqbench.testing.runner_protocol import Reference
from ptqbench.testing.shared_cache import SharedFolder


@dataclass(frozen=True)
class _Missing:
    reason: str


class SharedRunner:
    """Makes each artifact once per session and measures only what a test asks for.

    Args:
        folder: Shared by all workers of the session.
        workers: How many processes run tests side by side.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self._root = folder
        self._workers = workers
        self._stack = ExitStack()
        self._subject: tuple[str, Subject] | None = None
        self._kept: tuple[tuple[str, ...], Bench] | None = None
        self._measured: dict[tuple[str, ...], object] = {}

    def backends(self) -> Mapping[str, str | None]:
        """Registered backends: None, or why the backend cannot run here."""
        return {backend.name: backend.availability() for backend in BACKENDS}

    def machine(self) -> Mapping[str, object]:
        """Facts about this machine."""
        return machine_facts()

    def judge(self, case: CaseRequest, gate: str) -> CaseResult:
        """Measure what one gate needs, and ask it.

        Raises:
            UserError: Weights or data cannot be read or do not fit.
        """
        recipe, backend = RECIPES.get(case.model), BACKENDS.get(case.backend)
        thresholds = recipe.thresholds_for(str(case.settings.weights)).replaced(
            case.settings.thresholds
        )
        part = needs_of(gate)
        known: dict[str, Any] = {}
        facts: dict[str, object] = {"engine": backend.engine}
        with process_unchanged():
            if reason := backend.refusal(recipe):
                known["unavailable"] = reason
            elif isinstance(found := self._part(case, part, thresholds), _Missing):
                known["missing"] = {part: found.reason}
            else:
                known[part] = found
                bench = self._bench(case, thresholds)
                info = bench.int8.info
                facts |= {**bench.subject.facts, "flow": info.flow}
                facts |= {"calibration_images": info.calibration_images, **facts_of(found)}
                facts |= broken_facts("calibration", broken_in(bench.subject.data.calibration))
        evidence = Evidence(thresholds, instruction_set(), kernels_for=backend.targets, **known)
        return CaseResult(
            model=case.model,
            weights=str(case.settings.weights),
            backend=case.backend,
            data=case.settings.data,
            recipe=recipe.hash,
            metrics=metrics_of(known.get(part)),
            gates=evaluate(evidence, [gate]),
            facts=facts,
        )

    def reference(self, case: CaseRequest) -> Reference:
        """Counts, bytes, accuracy and SQNR of a case.

        Raises:
            UserError: The backend cannot run here, or weights or data do not fit.
        """
        backend = BACKENDS.get(case.backend)
        recipe = RECIPES.get(case.model)
        if reason := backend.refusal(recipe):
            raise UserError(f"The backend {backend.name} cannot be used here: {reason}.")
        # A reference does not depend on thresholds: it holds the images of the first look.
        thresholds = Thresholds(accuracy=0.0, agreement=0.0)
        with process_unchanged():
            bench = self._bench(case, thresholds)
            parts = [self._part(case, part, thresholds) for part in ("size", "accuracy")]
            numbers = {**metrics_of(*parts), **operations(bench.int8)}
        numbers["fusion_groups"] = len(bench.subject.complete().groups)
        numbers["calibration_images"] = bench.int8.info.calibration_images
        sums = 16 if backend.saturates() else 32
        return Reference(f"{backend.name}/{sums}-bit sums", recipe.hash, numbers)

    def latency(self, case: CaseRequest, precision: str) -> Callable[[], object]:
        """A call of an artifact on the input for latency, under the case's thread count."""
        bench = self._bench(
            case, RECIPES.get(case.model).thresholds_for(str(case.settings.weights))
        )
        model = (bench.int8 if precision == "int8" else bench.float32).load()
        example = bench.subject.timing.example()
        torch.set_num_threads(bench.subject.timing.threads)

        def call() -> object:
            with torch.inference_mode():
                return model(example)

        return call

    def _part(self, case: CaseRequest, part: str, thresholds: Thresholds) -> object:
        """A measurement, or why it is missing; the same one is not made twice."""
        key = (_digest(case), case.backend, part, repr(thresholds))
        if key not in self._measured:
            if part not in MEASURES:
                self._measured[key] = _Missing(f"The suite cannot measure {part} by itself.")
            else:
                try:
                    self._measured[key] = MEASURES.get(part)(self._bench(case, thresholds))
                except NotMeasured as reason:
                    self._measured[key] = _Missing(str(reason))
        return self._measured[key]

    def _bench(self, case: CaseRequest, thresholds: Thresholds) -> Bench:
        """The bench of a case; the last one is kept, with what was found on it."""
        key = (_digest(case), case.backend, repr(thresholds))
        if self._kept is None or self._kept[0] != key:
            backend = BACKENDS.get(case.backend)
            subject = self._open(case)
            folder = SharedFolder(subject.folder)
            bench = Bench(
                subject=subject,
                backend=backend,
                int8=_int8(folder, subject, backend),
                float32=_float32(folder, subject, backend),
                thresholds=thresholds,
                folder=folder,
                workers=self._workers,
            )
            self._kept = (key, bench)
        torch.set_num_threads(max(1, physical_cores() // self._workers))
        return self._kept[1]

    def _open(self, case: CaseRequest) -> Subject:
        """The subject of a case; tests come in the order of cases, so the last one is kept."""
        digest = _digest(case)
        if self._subject is None or self._subject[0] != digest:
            # Artifacts are loaded from it: nobody else may put any there.
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = str(self._root / f"{safe_file_name(case.model)}-{digest}")
            settings = replace(case.settings, artifacts=folder)
            recipe = RECIPES.get(case.model)
            subject = open_subject(recipe, settings, self._stack, silent, Phases())
            self._subject = (digest, subject)
        return self._subject[1]


def operations(artifact: Artifact) -> dict[str, float | None]:
    """How many convolutions and linear layers of an artifact's graph are int8 and float32."""
    graph = BACKENDS.get(artifact.info.backend).layers(artifact.path)
    return {
        "int8_operations": len(graph.int8_layers),
        "float32_operations": len(graph.float_layers),
    }


def _int8(folder: SharedFolder, subject: Subject, backend: Backend) -> Artifact:
    def make(path: Path) -> None:
        # Ranges depend a little on the number of threads; it is that of `ptqbench run`, however
        # many workers there are.
        torch.set_num_threads(subject.timing.threads)
        build_int8(subject, backend, Phases(), path)

    return Artifact.open(folder.once(subject.int8_path(backend.name).name, make))


def _float32(folder: SharedFolder, subject: Subject, backend: Backend) -> Artifact:
    def make(path: Path) -> None:
        example = next(calibration_batches(subject.data, subject.recipe))[:1]
        backend.build_float(subject.model, subject.recipe.model, example, path)

    return Artifact.open(folder.once(f"{safe_file_name(subject.recipe.model)}.float32.pt", make))


def _digest(case: CaseRequest) -> str:
    """What the float32 side of a case depends on, in eight hexadecimal digits."""
    # The number of workers is left out: it changes no image.
    parts = case.settings.to_dict() | {"model": case.model}
    for name in ("workers", "artifacts", "thresholds"):
        del parts[name]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
