"""The proposal of a recipe: complete, with what was left open measured."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace

import torch

from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS, default_backend
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.process_state import process_unchanged
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.core.version import package_version
from ptqbench.data.image_set import Data
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.random_images import RandomImages
from ptqbench.errors import UserError
from ptqbench.evaluation.backend_choice import Choice, choose_backend
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.open_subject import artifact_folder, open_subject
from ptqbench.evaluation.subject import Subject, latency_input
from ptqbench.measurement.intervals import noise_factor
from ptqbench.measurement.speed import Speed, measure_speed
from ptqbench.models.catalog import MODELS
from ptqbench.models.meta_init import initialised
from ptqbench.quantization.classifier_check import check_classifier
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.recipe import MEASURED
from ptqbench.recipes.toml_format import to_toml
from ptqbench.settings.layers import RECIPE
from ptqbench.settings.requests import CaseRequest, chosen_backends
from ptqbench.settings.run_settings import RunSettings
from ptqbench.weights.load import build_model
from ptqbench.weights.open_weights import open_weights

MARGIN = 0.8
"""Share of the speedup's lower limit that a proposed threshold requires."""
_CLASSES = 10


@process_unchanged()
def propose(
    request: CaseRequest,
    *,
    weights: bool,
    images: bool,
    keep_float: tuple[str, ...] | None = None,
    progress: Progress = silent,
) -> str:
    """Write out the complete recipe of a model, as the text of a file.

    What the recipe leaves open is derived from the model. If it recommends no backend, the
    backend and its speedup are measured; neither depends on the values of the parameters.

    Args:
        request: The model, and the backends to choose from.
        weights: Whether weights are set; else random parameters are used.
        images: Whether images are set; else agreement with float32 is not measured.
        keep_float: What stays float32, instead of what the recipe says.
        progress: Progress callback.

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
            subject = replace(subject, canonical=subject.quantizable())
        proposal = subject.complete().written_out()
        notes: dict[str, str] = {}
        backend = _requested_backend(request)
        if recipe.backend == MEASURED:
            target = BACKENDS.get(backend or default_backend())
            reference = FloatReference(subject, target, phases)
            artifact = None
            if backend is None:
                choice = choose_backend(
                    subject, phases, reference, compare=images, progress=progress
                )
                backend, notes["backend"] = choice.backend, _choice_note(choice)
                artifact = choice.artifact
            if artifact is None:
                artifact = build_int8(subject, target, phases, progress=progress)
            speed = _speed(subject, reference, artifact.load(), progress)
            speedup, notes["speedup"] = _threshold(speed)
            thresholds = proposal.thresholds.replaced({"speedup": speedup})
            proposal = replace(proposal, thresholds=thresholds)
        proposal = replace(proposal, backend=backend or recipe.backend)
    return to_toml(proposal, _heading(proposal), notes)


def _without_images(
    recipe: Recipe, settings: RunSettings, stack: ExitStack, weights: bool
) -> Subject:
    """Build a subject with random images, for a model's structure and speed only."""
    spec = MODELS.get(recipe.model)
    if weights:
        key = settings.weights_key
        loaded = open_weights(spec, settings.weights, settings.overrides, key=key)
        spec, model = spec.fitted(loaded.state), build_model(spec, loaded)
    else:
        model = initialised(spec.factory, spec.num_classes or _CLASSES).eval()
    latency = latency_input(settings, spec.input_size)
    if spec.origin:
        check_classifier(model, latency.example())
    side = spec.input_size[1]
    seed = settings.seed
    return Subject(
        model=model,
        recipe=recipe,
        weights="random",
        preprocessing=Preprocessing(),
        data=Data("random images", RandomImages(side, seed), RandomImages(side, seed + 1)),
        latency=latency,
        folder=artifact_folder(None, stack),
        facts={},
        thresholds=recipe.thresholds.replaced(settings.thresholds),
        settings=settings,
    )


def _requested_backend(request: CaseRequest) -> str | None:
    """The one backend that is set; None: the recipe's, or the fastest.

    Raises:
        UserError: Several are set.
    """
    if request.origin == RECIPE or MEASURED in request.backends:
        return None
    availability = {backend.name: backend.availability() for backend in BACKENDS}
    names = chosen_backends(request.backends, request.origin, availability)
    if len(names) > 1:
        raise UserError(
            f"{request.origin} names {', '.join(names)}, but a recipe recommends one backend. Name "
            "one, or none to have the fastest recommended."
        )
    return names[0]


def _choice_note(choice: Choice) -> str:
    texts = [candidate.text(bool(choice.images)) for candidate in choice.candidates]
    if choice.images:
        images = f"agreement with float32 on {choice.images} images"
    else:
        images = "agreement with float32 not measured"
    return f"Measured on {_machine()}: {'; '.join(texts)}; {images}."


def _speed(subject: Subject, reference: FloatReference, int8: Model, progress: Progress) -> Speed:
    return measure_speed(
        reference.fastest,
        int8,
        subject.latency.example(),
        threads=subject.latency.threads,
        threshold=None,
        progress=progress,
    )


def _threshold(speed: Speed) -> tuple[dict[str, float], str]:
    """The speedup to require, and a note on how it was measured."""
    speedup, noise = speed.speedup, speed.noise
    shape = "×".join(map(str, speed.input_shape))
    note = (
        f"Measured on {_machine()}: {speedup.value:.2f} times as fast as float32 "
        f"({speedup.low:.2f} to {speedup.high:.2f}; float32 against itself {noise.low:.2f} to "
        f"{noise.high:.2f}) at {shape} on {speed.threads} threads."
    )
    required = math.floor(speedup.low / noise_factor(noise) * MARGIN * 10) / 10
    if required < 1:
        return {}, f"{note} No speedup can be promised from that."
    return (
        {instruction_set(): required},
        f"{note} Required is {MARGIN:.0%} of the lower limit, less what noise explains; other "
        "instruction sets promise nothing until they are measured.",
    )


def _machine() -> str:
    return f"{machine_facts()['cpu']} ({instruction_set()})"


def _heading(recipe: Recipe) -> list[str]:
    return [
        f"Recipe {recipe.hash} of {recipe.model}, printed by ptqbench {package_version()}.",
        'Use it with `recipes = ["FILE"]` in the settings, or with --recipe FILE.',
    ]
