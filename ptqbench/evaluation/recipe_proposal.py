"""``ptqbench recipe``: everything of a model's recipe by name, measured where it was left open."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.process_state import process_unchanged
from ptqbench.backends.registry import BACKENDS
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.core.version import package_version
from ptqbench.data.image_set import UNLABELLED, Data
from ptqbench.errors import UserError
from ptqbench.evaluation.backend_choice import Choice, choose_backend
from ptqbench.evaluation.case import FloatSide, Subject, build_int8
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.subject import artifact_folder, open_subject, timing_of
from ptqbench.measurement.intervals import noise_factor
from ptqbench.measurement.speed import Speed, measure_speed
from ptqbench.models.catalog import MODELS
from ptqbench.models.meta_init import initialised
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.quantization.completion import complete_recipe
from ptqbench.quantization.fx_tracing import check_classifier
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.recipe import MEASURED
from ptqbench.recipes.toml_format import to_toml
from ptqbench.settings.layers import RECIPE
from ptqbench.settings.requests import CaseRequest, chosen_backends
from ptqbench.settings.run_settings import RunSettings
from ptqbench.weights.load import build_model
from ptqbench.weights.open_weights import open_weights

MARGIN = 0.8
"""Share of the speedup's lower limit that a printed threshold asks for."""
_CLASSES = 10


@dataclass(frozen=True)
class Noise:
    """Random images, for whoever wants to know how fast a model is and has no others.

    Attributes:
        side: Height and width.
        seed: Of the pixels.
    """

    side: int
    seed: int
    name: str = "random images"
    classes: tuple[str, ...] = ()
    labelled: bool = False
    count: int = 16
    limit: int = 16

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normally distributed pixels ``N×3×H×W``, and labels that say nothing."""
        for first in range(start, stop, batch_size):
            number = min(batch_size, stop - first)
            generator = torch.Generator().manual_seed(self.seed * 10_007 + first)
            pixels = torch.randn(number, 3, self.side, self.side, generator=generator)
            yield pixels, torch.full((number,), UNLABELLED)

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """Of the seed and the position, which are all that an image is made of."""
        for index in range(start, stop):
            yield hashlib.sha256(f"{self.seed} {index}".encode()).hexdigest()


@process_unchanged()
def propose(
    request: CaseRequest,
    *,
    weights: bool,
    images: bool,
    keep_float: tuple[str, ...] | None = None,
    progress: Progress = silent,
) -> str:
    """The complete recipe of a model, as a file.

    What the recipe leaves open is found in the model; a backend that it does not recommend is
    measured, and with it the speedup. Neither depends on the values of the parameters.

    Args:
        request: The model, and the backends that come into question.
        weights: Whether somebody named weights; else random parameters stand in.
        images: Whether somebody named images; else agreement with float32 is not looked at.
        keep_float: What stays float32 in place of what the recipe says.
        progress: Told how far the work is.

    Raises:
        UserError: Weights or images cannot be read, or the model cannot be quantized.
    """
    settings = request.settings
    recipe = RECIPES.get(request.model)
    if keep_float is not None:
        recipe = replace(recipe, keep_float=keep_float, int8_modules=None, fused_groups=None)
    torch.set_num_threads(settings.threads or physical_cores())
    phases = Phases()
    with ExitStack() as stack:
        if images:
            subject = open_subject(recipe, settings, stack, progress, phases)
        else:
            subject = _without_images(recipe, settings, stack, weights)
        found = subject.complete().written_out()
        notes: dict[str, str] = {}
        backend = _asked(request)
        if recipe.backend == MEASURED:
            calibrations = CalibrationCache()
            if backend is None:
                choice = choose_backend(subject, phases, calibrations, agree=images)
                backend, notes["backend"] = choice.backend, _choice_note(choice)
            speed = _speed(subject, backend, phases, calibrations, progress)
            speedup, notes["speedup"] = _threshold(speed)
            found = replace(found, thresholds=found.thresholds.replaced({"speedup": speedup}))
        found = replace(found, backend=backend or recipe.backend)
    return to_toml(found, _heading(found), notes)


def _without_images(
    recipe: Recipe, settings: RunSettings, stack: ExitStack, weights: bool
) -> Subject:
    """A subject that shows what a model is made of and how fast it is, and no more."""
    spec = MODELS.get(recipe.model)
    if weights:
        loaded = open_weights(spec, settings.weights, settings.overrides)
        spec, model = spec.fitted(loaded.state), build_model(spec, loaded)
    else:
        model = initialised(spec.factory, spec.num_classes or _CLASSES).eval()
    timing = timing_of(settings, spec.input_size)
    if spec.origin:
        check_classifier(model, timing.example())
    completed = complete_recipe(recipe, model, timing.example())
    side = spec.input_size[1]
    data = Data("random images", Noise(side, settings.seed), Noise(side, settings.seed + 1))
    folder = artifact_folder(None, stack)
    return Subject(model, recipe, "random", data, timing, folder, {}, completed=completed)


def _asked(request: CaseRequest) -> str | None:
    """The one backend that somebody named; None: the recipe's, or the fastest."""
    if request.origin == RECIPE or MEASURED in request.backends:
        return None
    known = {backend.name: backend.availability() for backend in BACKENDS}
    names = chosen_backends(request.backends, request.origin, known)
    if len(names) > 1:
        raise UserError(
            f"{request.origin} names {', '.join(names)}, but a recipe recommends one backend. Name "
            "one, or none to have the fastest recommended."
        )
    return names[0]


def _choice_note(choice: Choice) -> str:
    texts = [
        f"{each.backend} {each.ms:.3g} ms"
        + ("" if each.agreement is None else f" (agreement {each.agreement:.1%})")
        for each in choice.tried
    ]
    seen = f"on {choice.images} images" if choice.images else "not looked at without images"
    return f"Measured on {_machine()}: {', '.join(texts)}; agreement with float32 {seen}."


def _speed(
    subject: Subject,
    backend: str,
    phases: Phases,
    calibrations: CalibrationCache,
    progress: Progress,
) -> Speed:
    target = BACKENDS.get(backend)
    float_side = FloatSide(subject, target, phases)
    int8 = build_int8(subject, target, phases, calibrations=calibrations).load()
    timing = subject.timing
    return measure_speed(
        float_side.fastest,
        int8,
        timing.example(),
        threads=timing.threads,
        threshold=None,
        progress=progress,
    )


def _threshold(speed: Speed) -> tuple[dict[str, float], str]:
    """The speedup to ask for, and what is said about it."""
    found, noise = speed.speedup, speed.noise
    said = (
        f"Measured on {_machine()}: {found.value:.2f} times as fast as float32 "
        f"({found.low:.2f} to {found.high:.2f}; float32 against itself {noise.low:.2f} to "
        f"{noise.high:.2f}) at {'×'.join(map(str, speed.input_shape))} on {speed.threads} threads."
    )
    asked = math.floor(found.low / noise_factor(noise) * MARGIN * 10) / 10
    if asked < 1:
        return {}, f"{said} No speedup can be promised from that."
    return (
        {instruction_set(): asked},
        f"{said} Asked for is {MARGIN:.0%} of the lower limit, less what noise explains; other "
        "instruction sets promise nothing until they are measured.",
    )


def _machine() -> str:
    return f"{machine_facts()['cpu']} ({instruction_set()})"


def _heading(recipe: Recipe) -> list[str]:
    return [
        f"Recipe {recipe.hash} of {recipe.model}, printed by ptqbench {package_version()}.",
        'Use it with `recipes = ["FILE"]` in the settings, or with --recipe FILE.',
    ]
