"""The choice of a backend for a model whose recipe recommends none: the fastest here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend, Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import instruction_set
from ptqbench.core.atomic import atomic_path
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.core.significant import significant
from ptqbench.core.step_errors import step
from ptqbench.errors import UserError
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.subject import BATCH_SIZE, Subject
from ptqbench.measurement.fastest import CallTime, race
from ptqbench.quantization.calibration import CalibrationCache

ROUNDS = 9
"""Timed calls of each candidate that stays, in turn."""
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
        left_after: Number of calls after which it was given up as too slow; None: it stayed.
    """

    backend: str
    ms: float
    agreement: float | None
    left_after: int | None = None

    def text(self, compared: bool) -> str:
        """Describe it in a few words; ``compared``: whether agreement was measured at all."""
        text = f"{self.backend} {significant(self.ms)} ms"
        if self.agreement is not None:
            return f"{text}, agreement {self.agreement:.1%}"
        if self.left_after is not None:
            return f"{text}, too slow after {self.left_after} calls"
        return f"{text}, agreement not measured" if compared else text


@dataclass(frozen=True)
class Choice:
    """The backend that was selected, and why.

    Attributes:
        backend: Its name.
        candidates: All candidates, the fastest first.
        images: Number of images that agreement was measured on; 0: not measured.
        required: The agreement that candidates have to reach.
        impossible: Why a backend could not build an artifact at all, by its name.
        artifact: What was built for the selected one, in the subject's folder.
    """

    backend: str
    candidates: tuple[Candidate, ...]
    images: int
    required: float
    impossible: Mapping[str, str]
    artifact: Artifact | None = None

    def sentence(self, model: str) -> str:
        """Describe the choice for a report."""
        texts = [candidate.text(bool(self.images)) for candidate in self.candidates]
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
    reference: FloatReference | None = None,
    *,
    compare: bool = True,
    progress: Progress = silent,
) -> Choice:
    """Build an artifact for every backend whose kernels are written for this CPU, and time them.

    Those that are much slower than the fastest leave after a few calls. The others are compared
    with float32 in the order of their speed, until one agrees often enough; if one alone is left,
    there is nothing to compare.

    Args:
        subject: The model.
        phases: Where time is counted.
        reference: The float32 side, which candidates are compared with; by default the module.
        compare: Whether artifacts are compared with float32; pointless for random weights.
        progress: Progress callback.

    Raises:
        UserError: No backend can build an artifact.
    """
    with tempfile.TemporaryDirectory(prefix="ptqbench-") as folder:
        artifacts, impossible = _build_all(subject, Path(folder), phases, progress)
        try:
            times = _call_times(subject, artifacts, phases, progress)
        except RuntimeError:  # which one it is shows when each is called alone
            artifacts, broken = _runnable(subject, artifacts, phases)
            impossible |= broken
            times = _call_times(subject, artifacts, phases, progress)
        rivals = [name for name, time in times.items() if time.left_after is None]
        agreements: dict[str, float] = {}
        images = 0
        if compare and len(rivals) > 1:
            fastest_first = {name: artifacts[name] for name in rivals}
            predict = reference.predictor if reference else subject.model
            agreements, images = _agreements(subject, fastest_first, predict, phases, progress)
        candidates = [
            Candidate(name, time.ms, agreements.get(name), time.left_after)
            for name, time in times.items()
        ]
        required = subject.thresholds.agreement
        backend = select(candidates, required)
        artifact = _copy(artifacts[backend], subject.int8_path(BACKENDS.get(backend)))
    return Choice(backend, tuple(candidates), images, required, impossible, artifact)


def select(candidates: Sequence[Candidate], required: float) -> str:
    """Select the fastest that agrees often enough, else the fastest of the closest ones.

    Args:
        candidates: The fastest first; those whose agreement was not measured count only if no
            other's was.
        required: The agreement to reach.
    """
    shares = {each.backend: each.agreement for each in candidates if each.agreement is not None}
    if not shares:
        return candidates[0].backend
    best = max(shares.values())
    limit = required if best >= required else best - TOLERANCE
    return next(name for name, share in shares.items() if share >= limit)


def usable_backends(subject: Subject) -> list[Backend]:
    """Backends that can run here; if any of them is written for this CPU, only those.

    All of torch, which is registered first and always there: another runtime is a decision about
    what to deploy, which the user makes by naming it.
    """
    here, runtime = instruction_set(), next(iter(BACKENDS)).runtime
    of_runtime = [backend for backend in BACKENDS if backend.runtime == runtime]
    usable = [backend for backend in of_runtime if backend.refusal(subject.recipe) is None]
    return [each for each in usable if not each.targets or here in each.targets] or usable


def _build_all(
    subject: Subject,
    folder: Path,
    phases: Phases,
    progress: Progress,
) -> tuple[dict[str, Artifact], dict[str, str]]:
    artifacts: dict[str, Artifact] = {}
    errors: dict[str, UserError] = {}
    calibrations = CalibrationCache()
    backends = usable_backends(subject)
    for done, backend in enumerate(backends):
        progress(f"build for {backend.name}", done, len(backends))
        path = folder / f"{backend.name}.int8{backend.suffix}"
        try:
            artifacts[backend.name] = build_int8(
                subject, backend, phases, path, calibrations, progress
            )
        except UserError as error:
            errors[backend.name] = error
    if not artifacts:
        raise next(iter(errors.values()), UserError("No backend can run on this machine."))
    return artifacts, {name: str(error).rstrip(".") for name, error in errors.items()}


def _runnable(
    subject: Subject, artifacts: Mapping[str, Artifact], phases: Phases
) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Separate the artifacts that run on the input of the latency from those that do not.

    Raises:
        UserError: None of them runs.
    """
    running: dict[str, Artifact] = {}
    errors: dict[str, UserError] = {}
    for name, artifact in artifacts.items():
        title = f"Timing of {subject.recipe.model} on {name}"
        advice = "Its model must accept the size of the latency (--input-size)."
        try:
            with phases.measure("choose the backend", forward=True), step(title, advice):
                artifact.load()(subject.latency.example())
            running[name] = artifact
        except UserError as error:
            errors[name] = error
    if not running:
        raise next(iter(errors.values()))
    return running, {name: str(error).rstrip(".") for name, error in errors.items()}


def _call_times(
    subject: Subject, artifacts: Mapping[str, Artifact], phases: Phases, progress: Progress
) -> dict[str, CallTime]:
    """Time a call of each backend at the input of the latency; the fastest first."""
    latency = subject.latency
    progress("time the backends", 0, ROUNDS)
    with phases.measure("choose the backend", forward=True):
        models = {name: artifact.load() for name, artifact in artifacts.items()}
        return race(
            models, latency.example(), threads=latency.threads, rounds=ROUNDS, progress=progress
        )


def _agreements(
    subject: Subject,
    artifacts: Mapping[str, Artifact],
    float32: Model,
    phases: Phases,
    progress: Progress,
) -> tuple[dict[str, float], int]:
    """Agreement with float32 by backend, as far as it matters, and on how many images.

    Args:
        subject: Supplies the images; if none can be decoded, nothing is measured.
        artifacts: The fastest first. Once one agrees often enough, the others need not.
        float32: Predicts what they are compared with.
        phases: Where time is counted.
        progress: Progress callback; counts images.
    """
    images = subject.data.evaluation
    stop = min(IMAGES, images.count)
    expected: list[Tensor] = []
    shares: dict[str, float] = {}
    count = 0
    with phases.measure("choose the backend", forward=True), torch.inference_mode():
        for name, artifact in artifacts.items():
            # Loaded anew: what has seen other shapes is slower (see `measure_speedup`).
            model = artifact.load()
            same = count = 0
            for index, (pixels, _) in enumerate(images.batches(0, stop, BATCH_SIZE)):
                if index == len(expected):
                    expected.append(float32(pixels).argmax(1))
                same += int((model(pixels).argmax(1) == expected[index]).sum())
                count += len(pixels)
                progress(f"agreement on {name}", count, stop)
            if not count:
                return {}, 0
            shares[name] = same / count
            if shares[name] >= subject.thresholds.agreement:
                break
    return shares, count


def _copy(artifact: Artifact, path: Path) -> Artifact:
    """Copy an artifact to where it stays, the file that is loaded first at the end."""
    try:
        for source in reversed(artifact.files):
            with atomic_path(path.with_suffix(source.suffix)) as temporary:
                shutil.copyfile(source, temporary)
    except OSError as error:
        raise UserError(f"The artifact {path} cannot be written: {error.strerror}.") from error
    return replace(artifact, path=path)
