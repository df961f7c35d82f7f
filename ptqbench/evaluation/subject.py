"""From names and paths to a subject: weights, images, input and folder of a model's cases."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from ptqbench.core.cpu_count import physical_cores, usable_cores
from ptqbench.core.paths import user_path
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.data.image_set import Data, check_classes, check_disjoint
from ptqbench.data.open import open_source
from ptqbench.errors import UserError
from ptqbench.evaluation.case import Subject, Timing
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.completion import check_count, complete_recipe
from ptqbench.quantization.fx_tracing import check_classifier
from ptqbench.recipes import Recipe
from ptqbench.settings.run_settings import RunSettings
from ptqbench.weights.load import Weights, build_model
from ptqbench.weights.open_weights import open_weights


def shown_settings(settings: RunSettings) -> dict[str, object]:
    """Return the settings as the report shows them, defaults filled in."""
    return {
        **settings.to_dict(),
        "threads": settings.threads or physical_cores(),
        "workers": settings.workers or usable_cores(),
    }


def timing_of(settings: RunSettings, input_size: tuple[int, int, int]) -> Timing:
    """Return the input at which latency is measured, from the model's standard size."""
    channels, height, width = input_size
    if settings.input_size:
        height = width = settings.input_size
    shape = (settings.batch_size, channels, height, width)
    return Timing(shape, settings.threads or physical_cores(), settings.seed)


def open_subject(
    recipe: Recipe,
    settings: RunSettings,
    stack: ExitStack,
    progress: Progress,
    phases: Phases,
    *,
    complete: bool = True,
) -> Subject:
    """Load weights and open images for a model's cases.

    Args:
        recipe: Of the model.
        settings: Where weights, images and artifacts are.
        stack: Removes the temporary folder of artifacts that are not kept.
        progress: Told while weights are downloaded or made and fixture images are rendered.
        phases: Where time is counted.
        complete: Whether what the recipe leaves open is found in the model, as building and
            judging an artifact of its own takes.

    Raises:
        UserError: Weights or images cannot be read or do not fit, or the model cannot be
            traced where its recipe asks for that.
    """
    with phases.measure("load weights"):
        spec = MODELS.get(recipe.model)
        weights = open_weights(spec, settings.weights, settings.overrides, progress)
        spec = spec.fitted(weights.state)
        if settings.input_size:
            spec.check_side(settings.input_size, "the input size")
        model = build_model(spec, weights)
    with phases.measure("open images"):
        data = open_data(settings.data, weights, settings.seed, progress, settings)
    timing = timing_of(settings, spec.input_size)
    if spec.origin:
        check_classifier(model, timing.example())
    completed = None
    if complete:
        with phases.measure("complete the recipe"):
            completed = complete_recipe(recipe, model, timing.example())
            if spec.origin:
                check_count(completed, model)
    facts = source_facts(weights, data)
    folder = artifact_folder(settings.artifacts, stack)
    asked = recipe.thresholds_for(weights.source).replaced(settings.thresholds)
    return Subject(
        model, recipe, weights.source, data, timing, folder, facts, asked, completed=completed
    )


def source_facts(weights: Weights, data: Data) -> dict[str, object]:
    """What a report tells about weights and images, whichever door they came through."""
    return {**weights.facts, "notes": (*weights.notes, *data.notes)}


def artifact_folder(wanted: str | None, stack: ExitStack) -> Path:
    """The folder for artifacts: the wanted one, or one that the stack removes.

    Raises:
        UserError: The wanted folder cannot be made.
    """
    if wanted is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptqbench-")))
    folder = user_path(wanted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The folder {wanted} cannot be created: {reason}.") from None
    return folder


def open_data(
    source: str,
    weights: Weights,
    seed: int,
    progress: Progress = silent,
    reading: RunSettings | None = None,
) -> Data:
    """Open the images that belong to weights.

    Args:
        source: ``fixture``, ``cifar10[:ROOT]``, ``imagenet:ROOT`` or an image folder.
        weights: Bring preprocessing and classes.
        seed: Of the calibration share, where it has to be split off, and of a sample.
        progress: Told while fixture images are rendered.
        reading: How many images are used, by how many they are decoded, and what may be broken.

    Raises:
        UserError: Unreadable, other classes than the weights', or calibration images
            among the evaluation images.
    """
    data = open_source(
        source,
        weights.preprocessing,
        classes=weights.classes,
        num_classes=weights.num_classes,
        seed=seed,
        reading=reading or RunSettings(),
        progress=progress,
    )
    check_classes(data, weights.classes, weights.num_classes)
    check_disjoint(data)
    return data
