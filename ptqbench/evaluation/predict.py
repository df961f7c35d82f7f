"""The prediction for one picture, by float32 and by int8."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS, recommended
from ptqbench.backends.process_state import process_unchanged
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.core.step_errors import step
from ptqbench.data.decode import load_image
from ptqbench.errors import UserError
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.open_subject import open_subject
from ptqbench.evaluation.result import Prediction
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.recipe import MEASURED
from ptqbench.settings.requests import CaseRequest, chosen_backends


@process_unchanged()
def predict(image: Path, request: CaseRequest, progress: Progress = silent) -> Prediction:
    """Predict the five most likely classes of one picture with float32 and with int8.

    Args:
        image: The picture.
        request: Model, weights, and the images that set the ranges. Of several backends one is
            used: the recipe's recommendation if it is among them, else the first available one.
        progress: Progress callback.

    Raises:
        UserError: Unknown names, a picture that cannot be read, a backend that is not
            available, or weights and data that do not fit.
    """
    recipe = RECIPES.get(request.model)
    backend = _backend(recipe, request)
    picture = load_image(image)
    if reason := backend.refusal(recipe):
        raise UserError(f"The backend {backend.name} cannot be used here: {reason}.")
    with ExitStack() as stack:
        subject = open_subject(recipe, request.settings, stack, progress)
        preprocessing = subject.preprocessing
        pixels = preprocessing.normalise(preprocessing.pixels(picture)[None])
        int8 = build_int8(subject, backend, Phases()).load()
        labels = subject.data.evaluation.classes
        name = f"Prediction with {request.model} on {backend.name}"
        with step(name, "Another backend may run it."), torch.inference_mode():
            float32_logits, int8_logits = subject.model(pixels)[0], int8(pixels)[0]
    notes = subject.weights_notes
    return Prediction(
        request.model,
        subject.weights,
        backend.name,
        _top5(float32_logits, labels),
        _top5(int8_logits, labels),
        notes,
    )


def _backend(recipe: Recipe, request: CaseRequest) -> Backend:
    """The backend to use of those requested; it may be one that is not available."""
    refusals = {backend.name: backend.refusal(recipe) for backend in BACKENDS}
    if MEASURED in request.backends:  # for one picture, that would take too long
        return BACKENDS.get(recommended(recipe))
    names = chosen_backends(request.backends, request.origin, refusals)
    usable = [name for name in names if refusals[name] is None] or names
    return BACKENDS.get(recipe.backend if recipe.backend in usable else usable[0])


def _top5(logits: Tensor, classes: Sequence[str]) -> tuple[tuple[str, float], ...]:
    top = logits.softmax(0).topk(min(5, len(classes)))
    return tuple(
        (classes[int(label)], float(share))
        for share, label in zip(top.values, top.indices, strict=True)
    )
