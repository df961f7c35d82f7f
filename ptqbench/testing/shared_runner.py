"""Cases behind the tests: artifacts, logits and measurements, computed once and shared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend, Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.process_state import process_unchanged
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.names import nearest, safe_file_name
from ptqbench.core.phases import Phases
from ptqbench.data.image_set import ImageSet
from ptqbench.errors import UserError
from ptqbench.evaluation.case import CaseEvaluation, loaded_predictors, unavailable_case
from ptqbench.evaluation.fields import metrics_of
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.float_rivals import FloatRivals
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.open_subject import open_subject
from ptqbench.evaluation.result import CaseResult
from ptqbench.evaluation.subject import BATCH_SIZE, Subject
from ptqbench.recipes import RECIPES
from ptqbench.settings.requests import CaseRequest
from ptqbench.settings.thresholds import Thresholds
from ptqbench.testing.benchmark_tracking import PRECISIONS
from ptqbench.testing.runner_protocol import Reference
from ptqbench.testing.shared_cache import SharedFolder, SharedLogits


class SharedRunner:
    """Builds each artifact once per session and measures only what a test needs.

    Args:
        folder: Shared by all workers of the session.
        workers: How many processes run tests side by side.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self._root = folder
        self._workers = workers
        self._stack = ExitStack()
        self._subject: tuple[str, Subject] | None = None
        self._evaluation: tuple[tuple[str, ...], CaseEvaluation] | None = None

    def backends(self) -> Mapping[str, str | None]:
        """Registered backends: None, or why the backend cannot run here."""
        return {backend.name: backend.availability() for backend in BACKENDS}

    def machine(self) -> Mapping[str, object]:
        """Facts about this machine."""
        return machine_facts()

    def judge(self, case: CaseRequest, gate: str) -> CaseResult:
        """Put a case through one gate, with the measurement that it needs.

        Raises:
            UserError: Weights or data cannot be read or do not fit.
        """
        recipe, backend = RECIPES.get(case.model), BACKENDS.get(case.backend)
        if reason := backend.refusal(recipe):
            refused = unavailable_case(recipe, backend, reason, case.settings)
            return replace(refused, gates=tuple(g for g in refused.gates if g.name == gate))
        thresholds = recipe.thresholds_for(str(case.settings.of(case.model).weights))
        with process_unchanged():
            evaluation = self._evaluate(case, thresholds.replaced(case.settings.thresholds))
            return evaluation.judge([gate])

    def reference(self, case: CaseRequest) -> Reference:
        """Measure counts, bytes, accuracy and SQNR of a case.

        Raises:
            UserError: The backend cannot run here, or weights or data do not fit.
        """
        recipe, backend = RECIPES.get(case.model), BACKENDS.get(case.backend)
        if reason := backend.refusal(recipe):
            raise UserError(f"The backend {backend.name} cannot be used here: {reason}.")
        # A reference does not depend on thresholds: it holds the images of the first look.
        with process_unchanged():
            evaluation = self._evaluate(case, Thresholds(accuracy=0.0, agreement=0.0))
            measured = [evaluation.measurement(name) for name in ("size", "accuracy")]
            numbers = {**metrics_of(*measured), **operations(backend, evaluation.artifact)}
        numbers["fusion_groups"] = len(evaluation.subject.complete().groups)
        numbers["calibration_images"] = evaluation.artifact.info.calibration_images
        sums = 16 if backend.saturates() else 32
        return Reference(f"{backend.name}/{sums}-bit sums", recipe.hash, numbers)

    def latency(self, case: CaseRequest, precision: str) -> Callable[[], object]:
        """Return a call of an artifact on the input for latency, with the case's threads.

        Raises:
            UserError: There is no such precision.
        """
        if precision not in PRECISIONS:
            raise UserError(
                f"Unknown precision {precision!r}. {nearest(precision, list(PRECISIONS))}"
            )
        recipe = RECIPES.get(case.model)
        weights = str(case.settings.of(case.model).weights)
        evaluation = self._evaluate(case, recipe.thresholds_for(weights))
        int8 = precision == "int8"
        artifact = evaluation.artifact if int8 else evaluation.reference.artifact
        model = artifact.load()
        example = evaluation.subject.latency.example()
        torch.set_num_threads(evaluation.subject.latency.threads)

        def call() -> object:
            with torch.inference_mode():
                return model(example)

        return call

    def _evaluate(self, case: CaseRequest, thresholds: Thresholds) -> CaseEvaluation:
        """The evaluation of a case; the last one is cached, with its measurements."""
        key = (_digest(case), case.backend, repr(thresholds))
        if self._evaluation is None or self._evaluation[0] != key:
            subject = replace(self._open(case), thresholds=thresholds)
            self._evaluation = (key, self._opened(subject, BACKENDS.get(case.backend)))
        threads = case.settings.threads or physical_cores()
        torch.set_num_threads(max(1, min(threads, physical_cores() // self._workers)))
        return self._evaluation[1]

    def _opened(self, subject: Subject, backend: Backend) -> CaseEvaluation:
        folder = SharedFolder(subject.folder)

        def reference(backend: Backend) -> FloatReference:
            artifact = _float32(folder, subject, backend)
            return FloatReference(subject, backend, Phases(), artifact=artifact)

        return CaseEvaluation(
            subject,
            backend,
            _int8(folder, subject, backend),
            FloatRivals(reference),
            predictors=lambda case: _cached_predictors(folder, case),
            pixel_predictors=loaded_predictors,
            unmeasurable={} if self._workers == 1 else {"speed": _beside_others(self._workers)},
        )

    def _open(self, case: CaseRequest) -> Subject:
        """The subject of a case; tests are ordered by case, so the last one is cached."""
        digest = _digest(case)
        if self._subject is None or self._subject[0] != digest:
            # Artifacts are loaded from it, so no other user may write to it.
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = str(self._root / f"{safe_file_name(case.model)}-{digest}")
            settings = replace(case.settings, artifacts=folder, thresholds={})
            recipe = RECIPES.get(case.model)
            self._subject = (digest, open_subject(recipe, settings, self._stack))
        return self._subject[1]


def operations(backend: Backend, artifact: Artifact) -> dict[str, float | None]:
    """Count the convolutions and linear layers of an artifact that are int8 and float32."""
    graph = backend.layers(artifact.path)
    return {
        "int8_operations": len(graph.int8_layers),
        "float32_operations": len(graph.float_layers),
    }


def _cached_predictors(folder: SharedFolder, case: CaseEvaluation) -> tuple[Model, Model, ImageSet]:
    """Return models that look up the logits that a worker has computed.

    float32 runs as it is saved and not in its fastest lowering, which another worker may
    choose differently: the logits would not be the same ones.
    """
    name = case.artifact.path.stem
    shared = SharedLogits(
        folder,
        case.subject.data.evaluation,
        {"float32": case.reference.artifact.load, name: case.artifact.load},
        BATCH_SIZE,
    )
    return shared.model("float32"), shared.model(name), shared


def _beside_others(workers: int) -> str:
    return (
        f"Speed is not measured while {workers} pytest-xdist workers run side by side: they take "
        "the CPU from each other. Run the speedup tests on their own, `pytest -k speedup -n 0`."
    )


def _int8(folder: SharedFolder, subject: Subject, backend: Backend) -> Artifact:
    def build(path: Path) -> None:
        # Ranges depend a little on the number of threads; it is that of `ptqbench run`, however
        # many workers there are.
        torch.set_num_threads(subject.latency.threads)
        build_int8(subject, backend, Phases(), path)

    return Artifact.open(folder.built(subject.int8_path(backend).name, build))


def _float32(folder: SharedFolder, subject: Subject, backend: Backend) -> Artifact:
    def build(path: Path) -> None:
        example = subject.inspection_images()[:1]
        backend.build_float(subject.model, subject.recipe.model, example, path)

    return Artifact.open(folder.built(subject.float_path(backend).name, build))


def _digest(case: CaseRequest) -> str:
    """What the float32 side of a case depends on, in eight hexadecimal digits."""
    # The number of workers is left out: it changes no image.
    parts = case.settings.to_dict() | {"model": case.model}
    for name in ("workers", "artifacts", "thresholds"):
        del parts[name]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
