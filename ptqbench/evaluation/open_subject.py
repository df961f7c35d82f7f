"""Opening a subject: load the weights and the images that settings name."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ptqbench.core.paths import user_path
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.data.image_set import Data, check_classes, check_disjoint, example_image
from ptqbench.data.open import open_source
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.evaluation.subject import MODULE, LatencyInput, Subject, latency_input
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.classifier_check import check_classifier
from ptqbench.quantization.completion import check_count
from ptqbench.recipes import Recipe
from ptqbench.settings.run_settings import RunSettings
from ptqbench.weights.load import Weights, build_model
from ptqbench.weights.open_weights import open_weights


def open_subject(
    recipe: Recipe,
    settings: RunSettings,
    stack: ExitStack,
    progress: Progress = silent,
    phases: Phases | None = None,
    *,
    data: Data | None = None,
    complete: bool = True,
) -> Subject:
    """Load the weights and open the images of a named model.

    Args:
        recipe: Its recipe.
        settings: Weights, images, input, thresholds and the folder of artifacts.
        stack: Removes the temporary folder of artifacts at the end.
        progress: Progress callback for downloads and rendering.
        phases: Where time is counted.
        data: Opened images, instead of those that the settings name.
        complete: Whether what the recipe leaves open is derived from the model, as building
            an artifact and judging one that ptqbench built need it.

    Raises:
        UserError: Weights or images cannot be read or do not fit, or the model cannot be
            traced although its recipe needs it.
    """
    phases = phases or Phases()
    progress(f"{recipe.model}: load weights and images", 0, 0)
    settings = settings.of(recipe.model)
    with phases.measure("load weights"):
        spec = MODELS.get(recipe.model)
        key = settings.weights_key
        weights = open_weights(spec, settings.weights, settings.overrides, progress, key)
        spec = spec.fitted(weights.state)
        if settings.input_size:
            spec.check_side(settings.input_size, "the input size")
        model = build_model(spec, weights)
    with phases.measure("open images"):
        opened = open_data(settings, weights, progress) if data is None else _disjoint(data)
    latency = latency_input(settings, spec.input_size)
    if spec.origin:
        check_classifier(model, latency.example())
    subject = _subject(model, recipe, weights, opened, latency, settings, stack)
    return _completed(subject, phases, progress, count=bool(spec.origin)) if complete else subject


def open_module_subject(
    module: nn.Module,
    recipe: Recipe,
    settings: RunSettings,
    stack: ExitStack,
    progress: Progress = silent,
    phases: Phases | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    data: Data | None = None,
    complete: bool = True,
) -> Subject:
    """Open the images of a module that the caller passes; it is copied, not changed.

    Args:
        module: Float32 classifier.
        recipe: Its recipe.
        settings: Images, input, thresholds and the folder of artifacts.
        stack: Removes the temporary folder of artifacts at the end.
        progress: Progress callback for rendering.
        phases: Where time is counted.
        preprocessing: What is done to its images; by default ImageNet's.
        classes: Class names in output order; None: not known.
        data: Opened images, instead of those that the settings name.
        complete: See `open_subject`.

    Raises:
        UserError: The module is not a classifier, takes no such input, or the images cannot
            be read or do not fit.
    """
    phases = phases or Phases()
    model = copy.deepcopy(module).eval()
    preprocessing = preprocessing or Preprocessing()
    if recipe.model in MODELS:
        spec = MODELS.get(recipe.model)
        input_size = spec.input_size
        if settings.input_size:
            spec.check_side(settings.input_size, "the input size")
    elif data is not None:
        _, channels, height, width = example_image(data.calibration).shape
        input_size = (channels, height, width)
    else:
        input_size = (3, preprocessing.crop, preprocessing.crop)
    latency = latency_input(settings, input_size)
    for example in (torch.zeros(1, *input_size), latency.example()):
        check_classifier(model, example)
    with torch.inference_mode():
        outputs = model(torch.zeros(1, *input_size)).shape[1]
    names = None if classes is None else tuple(classes)
    weights = Weights(MODULE, {}, preprocessing, names, outputs, "")
    with phases.measure("open images"):
        opened = open_data(settings, weights, progress) if data is None else _disjoint(data)
    subject = _subject(model, recipe, weights, opened, latency, settings, stack)
    return _completed(subject, phases, progress, count=True) if complete else subject


def _completed(subject: Subject, phases: Phases, progress: Progress, *, count: bool) -> Subject:
    progress(f"{subject.recipe.model}: read the layers", 0, 0)
    with phases.measure("make the canonical graph"):
        subject = replace(subject, canonical=subject.quantizable())
    with phases.measure("complete the recipe"):
        completed = subject.complete()
        if count:
            check_count(completed, subject.quantizable())
    return replace(subject, completed=completed)


def _subject(
    model: nn.Module,
    recipe: Recipe,
    weights: Weights,
    data: Data,
    latency: LatencyInput,
    settings: RunSettings,
    stack: ExitStack,
) -> Subject:
    return Subject(
        model=model,
        recipe=recipe,
        weights=weights.source,
        preprocessing=weights.preprocessing,
        data=data,
        latency=latency,
        folder=artifact_folder(settings.artifacts, stack),
        facts={**weights.facts, "notes": (*weights.notes, *data.notes)},
        thresholds=recipe.thresholds_for(weights.source).replaced(settings.thresholds),
        settings=replace(settings, weights=weights.source, data=data.name),
        weights_notes=tuple(weights.notes),
    )


def artifact_folder(path: str | None, stack: ExitStack) -> Path:
    """Return the folder for artifacts: the named one, or a temporary one that the stack removes.

    Raises:
        UserError: The named folder cannot be created.
    """
    if path is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptqbench-")))
    folder = user_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The folder {path} cannot be created: {reason}.") from None
    return folder


def open_data(settings: RunSettings, weights: Weights, progress: Progress = silent) -> Data:
    """Open the images that settings name, for weights.

    Args:
        settings: Name the images, and how they are read.
        weights: Bring preprocessing and classes.
        progress: Progress callback for rendering.

    Raises:
        UserError: Unreadable, other classes than the weights', or calibration images
            among the evaluation images.
    """
    data = open_source(
        settings.data,
        weights.preprocessing,
        classes=weights.classes,
        num_classes=weights.num_classes,
        seed=settings.seed,
        reading=settings,
        progress=progress,
    )
    check_classes(data, weights.classes, weights.num_classes)
    return _disjoint(data)


def _disjoint(data: Data) -> Data:
    check_disjoint(data)
    return data
