"""The choice of a backend for a model whose recipe recommends none: the fastest here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import instruction_set
from ptqbench.core.phases import Phases
from ptqbench.errors import UserError
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.subject import Subject
from ptqbench.measurement.fastest import pick_fastest
from ptqbench.quantization.calibration import CalibrationCache

ROUNDS = 15
"""Timed calls of each candidate, in turn."""
TOLERANCE = 0.02
"""Shares of agreement that differ by less cannot be told apart on that many images."""
IMAGES = 200
"""Evaluation images on which candidates are compared with float32."""


@dataclass(frozen=True)
class Candidate:
    """A backend that was tried.

    Attributes:
        backend: Its name.
        ms: Median time of a call.
        agreement: Share of images on which it predicts what float32 does; None: not measured.
    """

    backend: str
    ms: float
    agreement: float | None


@dataclass(frozen=True)
class Choice:
    """The backend that was selected, and why.

    Attributes:
        backend: Its name.
        candidates: All candidates, the fastest first.
        images: Number of images that agreement was measured on.
        required: The agreement that candidates have to reach.
        impossible: Why a backend could not build an artifact at all, by its name.
    """

    backend: str
    candidates: tuple[Candidate, ...]
    images: int
    required: float
    impossible: Mapping[str, str]

    def sentence(self, model: str) -> str:
        """Describe the choice for a report."""
        texts = []
        for candidate in self.candidates:
            agreement = candidate.agreement
            share = "" if agreement is None else f", agreement {agreement:.1%}"
            texts.append(f"{candidate.backend} {candidate.ms:.3g} ms{share}")
        texts += [f"{name} not possible ({reason})" for name, reason in self.impossible.items()]
        return (
            f"{model}: its recipe recommends no backend; selected {self.backend}, {self._rule}: "
            f"{'; '.join(texts)}."
        )

    @property
    def _rule(self) -> str:
        if not self.images:
            return "the fastest here"
        share = f"{100 * self.required:g} %"
        if any((each.agreement or 0.0) >= self.required for each in self.candidates):
            return (
                f"the fastest here that agrees with float32 on at least {share} of {self.images} "
                "images"
            )
        return (
            f"the fastest among the closest to float32 on {self.images} images; none reaches "
            f"{share} agreement"
        )


def choose_backend(
    subject: Subject,
    phases: Phases,
    calibrations: CalibrationCache | None = None,
    *,
    compare: bool = True,
) -> Choice:
    """Build an artifact for every backend whose kernels are written for this CPU, and time them.

    Args:
        subject: The model.
        phases: Where time is counted.
        calibrations: Keeps the calibrated module for building the artifact again.
        compare: Whether artifacts are compared with float32; pointless for random weights.

    Raises:
        UserError: No backend can build an artifact.
    """
    with tempfile.TemporaryDirectory(prefix="ptqbench-") as folder:
        artifacts, impossible = _build_all(
            subject, Path(folder), phases, calibrations or CalibrationCache()
        )
        agreements, images = _agreements(subject, artifacts, phases) if compare else ({}, 0)
        with phases.measure("choose the backend", forward=True):
            # Loaded anew: what has seen other shapes is slower (see `case.measure_speedup`).
            models = {name: artifact.load() for name, artifact in artifacts.items()}
            latency = subject.latency
            _, times = pick_fastest(
                models, latency.example(), threads=latency.threads, rounds=ROUNDS
            )
            del models
    candidates = [Candidate(name, times[name], agreements.get(name)) for name in artifacts]
    candidates.sort(key=lambda candidate: candidate.ms)
    required = subject.thresholds.agreement
    backend = select(candidates, required)
    return Choice(backend, tuple(candidates), images, required, impossible)


def select(candidates: Sequence[Candidate], required: float) -> str:
    """Select the fastest that agrees often enough, else the fastest of the closest ones.

    Args:
        candidates: The fastest first.
        required: The agreement to reach; ignored if it was not measured.
    """
    for candidate in candidates:
        if candidate.agreement is None or candidate.agreement >= required:
            return candidate.backend
    best = max(candidate.agreement or 0.0 for candidate in candidates)
    return next(c.backend for c in candidates if (c.agreement or 0.0) >= best - TOLERANCE)


def usable_backends(subject: Subject) -> list[Backend]:
    """Backends that can run here; if any of them is written for this CPU, only those."""
    here = instruction_set()
    usable = [backend for backend in BACKENDS if backend.refusal(subject.recipe) is None]
    return [each for each in usable if not each.targets or here in each.targets] or usable


def _build_all(
    subject: Subject, folder: Path, phases: Phases, calibrations: CalibrationCache
) -> tuple[dict[str, Artifact], dict[str, str]]:
    artifacts: dict[str, Artifact] = {}
    errors: dict[str, UserError] = {}
    for backend in usable_backends(subject):
        path = folder / f"{backend.name}.int8.pt"
        try:
            artifacts[backend.name] = build_int8(subject, backend, phases, path, calibrations)
        except UserError as error:
            errors[backend.name] = error
    if not artifacts:
        raise next(iter(errors.values()), UserError("No backend can run on this machine."))
    return artifacts, {name: str(error).rstrip(".") for name, error in errors.items()}


def _agreements(
    subject: Subject, artifacts: Mapping[str, Artifact], phases: Phases
) -> tuple[dict[str, float], int]:
    """Agreement with float32 by backend, and on how many images; none if none can be decoded."""
    images = subject.data.evaluation
    same = dict.fromkeys(artifacts, 0)
    count = 0
    with phases.measure("choose the backend", forward=True), torch.inference_mode():
        models = {name: artifact.load() for name, artifact in artifacts.items()}
        for pixels, _ in images.batches(0, min(IMAGES, images.count), 50):
            count += len(pixels)
            expected = subject.model(pixels).argmax(1)
            for name, model in models.items():
                same[name] += int((model(pixels).argmax(1) == expected).sum())
    if not count:
        return {}, 0
    return {name: number / count for name, number in same.items()}, count
