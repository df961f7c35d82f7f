"""The subject of a model's cases: network, weights, images, input, thresholds and folder."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ptqbench.core.cpu_count import physical_cores, usable_cores
from ptqbench.core.names import safe_file_name
from ptqbench.core.paths import user_path
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.data.image_set import Data, check_classes, check_disjoint, example_image
from ptqbench.data.open import open_source
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.classifier_check import check_classifier
from ptqbench.quantization.completion import check_count, complete_recipe
from ptqbench.recipes import CompletedRecipe, Recipe
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.thresholds import Thresholds
from ptqbench.weights.load import Weights, build_model
from ptqbench.weights.open_weights import open_weights

BATCH_SIZE = 50
"""Images per forward pass in calibration and accuracy (docs/performance.md, Batch size)."""
INSPECTION_IMAGES = 4
"""Calibration images that artifacts are inspected with: enough to see every layer used."""
MODULE = "module"
"""Source of the weights of a module that the caller passes."""


@dataclass(frozen=True)
class LatencyInput:
    """The input at which latency is measured.

    Attributes:
        shape: ``N×C×H×W``.
        threads: Threads of both sides.
        seed: Seed of the pixels.
    """

    shape: tuple[int, int, int, int]
    threads: int
    seed: int = 0

    def example(self) -> Tensor:
        """Draw a random input of that shape, float32."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.shape, generator=generator)


@dataclass(frozen=True)
class Subject:
    """A float32 model that is to be quantized, with everything that belongs to it.

    Attributes:
        model: Float32 module in evaluation mode.
        recipe: How it is quantized.
        weights: Source of its parameters: ``fixture``, ``probe``, a path, ``module``, …
        preprocessing: What is done to its images.
        data: Calibration and evaluation images.
        latency: The input at which latency is measured.
        folder: Where artifacts are written.
        facts: Circumstances that the report shows.
        thresholds: What the gates require.
        settings: What was measured with: the weights and images that were used.
        weights_notes: What a reader should know about the weights alone.
        completed: The recipe, completed from the model's graph; None: not yet.
    """

    model: nn.Module
    recipe: Recipe
    weights: str
    preprocessing: Preprocessing
    data: Data
    latency: LatencyInput
    folder: Path
    facts: Mapping[str, object]
    thresholds: Thresholds
    settings: RunSettings
    weights_notes: tuple[str, ...] = ()
    completed: CompletedRecipe | None = None

    def complete(self) -> CompletedRecipe:
        """Return the recipe with everything that the model's graph determines.

        Raises:
            UserError: The model cannot be traced although its recipe needs it.
        """
        return self.completed or complete_recipe(self.recipe, self.model, self.latency.example())

    def int8_path(self, backend: str) -> Path:
        """Path of the int8 artifact for a backend."""
        return self.folder / f"{safe_file_name(self.recipe.model)}-{backend}.int8.pt"

    def with_note(self, sentence: str) -> Subject:
        """Return this subject with one more note for the report."""
        notes = self.facts.get("notes")
        before = notes if isinstance(notes, tuple) else ()
        return replace(self, facts={**self.facts, "notes": (*before, sentence)})

    def calibration_batches(self) -> Iterator[Tensor]:
        """Stream the images that the recipe calibrates with, in batches ``N×C×H×W`` float32."""
        return calibration_batches(self.data, self.recipe)

    def inspection_images(self) -> Tensor:
        """Return the few calibration images that artifacts are inspected with."""
        return next(self.calibration_batches())[:INSPECTION_IMAGES]


def calibration_batches(data: Data, recipe: Recipe) -> Iterator[Tensor]:
    """Stream the images that a recipe calibrates with, in batches ``N×C×H×W`` float32."""
    count = min(recipe.calibration_images, data.calibration.count)
    return (pixels for pixels, _ in data.calibration.batches(0, count, BATCH_SIZE))


def shown_settings(settings: RunSettings) -> dict[str, object]:
    """Return the settings as the report shows them, defaults filled in."""
    return {
        **settings.to_dict(),
        "threads": settings.threads or physical_cores(),
        "workers": settings.workers or usable_cores(),
    }


def latency_input(settings: RunSettings, input_size: tuple[int, int, int]) -> LatencyInput:
    """Return the input at which latency is measured, from the model's standard size ``C×H×W``."""
    channels, height, width = input_size
    if settings.input_size:
        height = width = settings.input_size
    shape = (settings.batch_size, channels, height, width)
    return LatencyInput(shape, settings.threads or physical_cores(), settings.seed)


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
    settings = settings.of(recipe.model)
    with phases.measure("load weights"):
        spec = MODELS.get(recipe.model)
        weights = open_weights(spec, settings.weights, settings.overrides, progress)
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
    return _completed(subject, phases, count=bool(spec.origin)) if complete else subject


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
    return _completed(subject, phases, count=True) if complete else subject


def _completed(subject: Subject, phases: Phases, *, count: bool) -> Subject:
    with phases.measure("complete the recipe"):
        completed = subject.complete()
        if count:
            check_count(completed, subject.model)
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
