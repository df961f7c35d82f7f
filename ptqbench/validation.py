"""Run named models through build, measurement and gates; look at one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.engine import BACKENDS, TorchBackend
from ptqbench.backends.isa import physical_cores
from ptqbench.case import FloatSide, build_int8, judge, unavailable
from ptqbench.data.single import load_image
from ptqbench.errors import UserError
from ptqbench.models.weights import load_weights
from ptqbench.models.zoo import MODELS
from ptqbench.phases import Phases
from ptqbench.progress import Progress, silent
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.reporting.machine import machine_facts
from ptqbench.reporting.result import CaseResult, Prediction, Report
from ptqbench.subjects import RunSettings, open_subject

__all__ = ["RunSettings", "predict", "run"]


def run(
    models: Sequence[str] = (),
    backends: Sequence[str] | None = None,
    settings: RunSettings | None = None,
    progress: Progress = silent,
    phases: Phases | None = None,
) -> Report:
    """Quantize models for backends and judge every artifact.

    Args:
        models: Names or wildcards; empty: every model with a recipe.
        backends: Names; None: the one that each recipe recommends.
        settings: Everything else.
        progress: Told how far the work is.
        phases: Where time is counted.

    Raises:
        UserError: An unknown name, weights that do not fit, data that cannot be read, …
            Names are checked before anything is measured.
    """
    settings = settings or RunSettings()
    phases = phases or Phases()
    names = MODELS.match(*models) if models else RECIPES.names()
    recipes = [RECIPES.get(name) for name in names]
    chosen = [BACKENDS.get(name) for name in dict.fromkeys(backends or ())]
    if settings.weights != "fixture" and len(recipes) > 1:
        raise UserError(
            f"--weights {settings.weights} belongs to one model, but {len(recipes)} are named "
            f"({', '.join(names)}). Name the one that it is for."
        )
    cases: list[CaseResult] = []
    torch.set_num_threads(settings.threads or physical_cores())
    for recipe in recipes:
        wanted = chosen or [BACKENDS.get(recipe.backend)]
        cases += _run_model(recipe, wanted, settings, progress, phases)
    return Report(machine_facts(), tuple(cases), settings.to_dict())


def _run_model(
    recipe: Recipe,
    backends: Sequence[TorchBackend],
    settings: RunSettings,
    progress: Progress,
    phases: Phases,
) -> list[CaseResult]:
    """All cases of one model; the float32 side is made once for all of them."""
    cases: list[CaseResult] = []
    with ExitStack() as stack:
        subject = None
        float_side = None
        for backend in backends:
            if reason := backend.availability():
                cases.append(
                    unavailable(
                        recipe, backend, reason, weights=settings.weights, data=settings.data
                    )
                )
                continue
            if subject is None or float_side is None:
                subject = open_subject(recipe, settings, stack, progress, phases)
                float_side = FloatSide(subject, backend, phases)
            artifact = build_int8(subject, backend, phases)
            cases.append(judge(subject, backend, artifact, float_side, progress, phases))
    return cases


def predict(
    image: Path,
    *,
    model: str,
    backend: str | None = None,
    weights: str = "fixture",
    data: str = "fixture",
    overrides: Mapping[str, object] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Prediction:
    """What float32 and int8 see in one picture: the five most likely classes of each.

    Raises:
        UserError: Unknown names, a picture that cannot be read, a backend that cannot run
            here, or weights and data that do not fit.
    """
    recipe = RECIPES.get(MODELS.get(model).name)
    target = BACKENDS.get(backend or recipe.backend)
    picture = load_image(image)
    if reason := target.availability():
        raise UserError(f"The backend {target.name} cannot be used here: {reason}.")
    settings = RunSettings(data=data, weights=weights, overrides=overrides or {}, seed=seed)
    phases = Phases()
    with ExitStack() as stack:
        subject = open_subject(recipe, settings, stack, progress, phases)
        loaded = load_weights(MODELS.get(model), weights, settings.overrides)
        pixels = loaded.preprocessing.normalise(loaded.preprocessing.pixels(picture)[None])
        int8 = build_int8(subject, target, phases).load()
        labels = subject.data.evaluation.classes
        with torch.inference_mode():
            seen = [_top5(run(pixels)[0], labels) for run in (subject.model, int8)]
    return Prediction(model, weights, target.name, *seen)


def _top5(logits: Tensor, classes: Sequence[str]) -> tuple[tuple[str, float], ...]:
    found = logits.softmax(0).topk(min(5, len(classes)))
    return tuple(
        (classes[int(label)], float(share))
        for share, label in zip(found.values, found.indices, strict=True)
    )
