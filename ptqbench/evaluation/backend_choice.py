"""Which backend is the fastest here for a model whose recipe recommends none."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.registry import BACKENDS
from ptqbench.core.phases import Phases
from ptqbench.errors import UserError
from ptqbench.evaluation.case import Subject, build_int8
from ptqbench.measurement.speed import pick_fastest
from ptqbench.quantization.calibration import CalibrationCache

ROUNDS = 15
"""Calls of each candidate that are timed, in turn."""
ALIKE = 0.02
"""Shares of agreement that differ by no more say nothing on that many images."""
IMAGES = 200
"""Evaluation images on which candidates have to agree with float32."""


@dataclass(frozen=True)
class Tried:
    """What was seen of a candidate.

    Attributes:
        backend: Its name.
        ms: Median time of a call.
        agreement: Share of images on which it predicts what float32 does; None: not looked at.
    """

    backend: str
    ms: float
    agreement: float | None


@dataclass(frozen=True)
class Choice:
    """The backend that is taken, and why.

    Attributes:
        backend: Its name.
        tried: All candidates, the fastest first.
        images: On how many images agreement was looked at.
        least: The agreement that was asked for.
        impossible: Why a backend could not make an artifact at all, by its name.
    """

    backend: str
    tried: tuple[Tried, ...]
    images: int
    least: float
    impossible: Mapping[str, str]

    def sentence(self, model: str) -> str:
        """What a report says about it."""
        texts = []
        for each in self.tried:
            share = "" if each.agreement is None else f", agreement {each.agreement:.1%}"
            texts.append(f"{each.backend} {each.ms:.3g} ms{share}")
        texts += [f"{name} not possible ({why})" for name, why in self.impossible.items()]
        return (
            f"{model}: its recipe recommends no backend, {self.backend} was taken, {self._rule}: "
            f"{'; '.join(texts)}."
        )

    @property
    def _rule(self) -> str:
        if not self.images:
            return "the fastest here"
        share = f"{100 * self.least:g}% of {self.images} images"
        if any((each.agreement or 0.0) >= self.least for each in self.tried):
            return f"the fastest here that agrees with float32 on at least {share}"
        return f"the fastest of those nearest to float32, because none agrees on {share}"


def choose_backend(
    subject: Subject,
    phases: Phases,
    calibrations: CalibrationCache | None = None,
    *,
    agree: bool = True,
) -> Choice:
    """Make an artifact for every backend whose kernels are written for this CPU, and time them.

    Args:
        subject: The model.
        phases: Where time is counted.
        calibrations: Keeps the calibrated module for whoever builds the artifact anew.
        agree: Whether artifacts have to agree with float32; not where the weights mean nothing.

    Raises:
        UserError: No backend can make an artifact.
    """
    with tempfile.TemporaryDirectory(prefix="ptqbench-") as folder:
        made, impossible = _made(subject, Path(folder), phases, calibrations or CalibrationCache())
        shares = _agreements(subject, made, phases) if agree else {}
        with phases.measure("choose the backend", forward=True):
            # Loaded anew: what has seen other shapes is slower (see `case.judge`).
            models = {name: artifact.load() for name, artifact in made.items()}
            timing = subject.timing
            _, times = pick_fastest(models, timing.example(), threads=timing.threads, rounds=ROUNDS)
            del models
    tried = sorted((Tried(n, times[n], shares.get(n)) for n in made), key=lambda each: each.ms)
    least = subject.asked.agreement
    chosen = picked(tried, least)
    images = min(IMAGES, subject.data.evaluation.count) if agree else 0
    return Choice(chosen, tuple(tried), images, least, impossible)


def picked(tried: Sequence[Tried], least: float) -> str:
    """The fastest that agrees often enough; if none does, the fastest of those that come nearest.

    Args:
        tried: The fastest first.
        least: The least agreement; it counts for nothing where none was looked at.
    """
    for each in tried:
        if each.agreement is None or each.agreement >= least:
            return each.backend
    best = max(each.agreement or 0.0 for each in tried)
    return next(e.backend for e in tried if (e.agreement or 0.0) >= best - ALIKE)


def candidates(subject: Subject) -> list[Backend]:
    """Backends that can run here, those alone that are written for this CPU if there are any."""
    usable = [backend for backend in BACKENDS if backend.refusal(subject.recipe) is None]
    return [backend for backend in usable if instruction_set() in backend.targets] or usable


def noted(subject: Subject, sentence: str) -> Subject:
    """A subject whose report has one more note."""
    notes = subject.facts.get("notes")
    before = notes if isinstance(notes, tuple) else ()
    return replace(subject, facts={**subject.facts, "notes": (*before, sentence)})


def _made(
    subject: Subject, folder: Path, phases: Phases, calibrations: CalibrationCache
) -> tuple[dict[str, Artifact], dict[str, str]]:
    made: dict[str, Artifact] = {}
    failed: dict[str, UserError] = {}
    for backend in candidates(subject):
        path = folder / f"{backend.name}.int8.pt"
        try:
            made[backend.name] = build_int8(subject, backend, phases, path, calibrations)
        except UserError as error:
            failed[backend.name] = error
    if not made:
        raise next(iter(failed.values()), UserError("No backend can run on this machine."))
    return made, {name: str(error).rstrip(".") for name, error in failed.items()}


def _agreements(subject: Subject, made: Mapping[str, Artifact], phases: Phases) -> dict[str, float]:
    images = subject.data.evaluation
    count = min(IMAGES, images.count)
    same = dict.fromkeys(made, 0)
    with phases.measure("choose the backend", forward=True), torch.inference_mode():
        models = {name: artifact.load() for name, artifact in made.items()}
        for pixels, _ in images.batches(0, count, 50):
            expected = subject.model(pixels).argmax(1)
            for name, model in models.items():
                same[name] += int((model(pixels).argmax(1) == expected).sum())
    return {name: number / count for name, number in same.items()}
