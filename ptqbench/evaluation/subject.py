"""From names and paths to a subject: weights, images, input and folder of a model's cases."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ptqbench.backends.cpu import physical_cores
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.data.image_set import Data, check_classes, check_disjoint
from ptqbench.data.open import open_source
from ptqbench.data.reading import BROKEN_SHARE, Reading, usable_cores
from ptqbench.errors import UserError
from ptqbench.evaluation.case import Subject, Timing
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.completion import check_count, completed
from ptqbench.quantization.fx_tracing import check_classifier
from ptqbench.recipes import Recipe
from ptqbench.settings.weights_specifier import default_weights
from ptqbench.weights.load import Weights, build_model
from ptqbench.weights.open_weights import open_weights


@dataclass(frozen=True)
class RunSettings:
    """What a run is asked for beside models and backends.

    Attributes:
        data: ``fixture``, ``cifar10[:ROOT]``, ``imagenet:ROOT`` or an image folder.
        limit: Evaluation images that are used at most; None: all of them.
        broken_share: Share of the pictures that may be undecodable.
        workers: Threads that decode beside inference; None: one per usable core.
        weights: ``fixture``, ``probe``, ``imagenet``, a name in torchvision's weights enums
            such as ``IMAGENET1K_V2``, or a file; None: ``fixture`` where they ship, and else
            ``probe``.
        overrides: Preprocessing and classes that win over the weights' sidecar.
        input_size: Height and width for latency; None: the model's standard size.
        batch_size: Batch size for latency.
        threads: None: all physical cores.
        seed: Of every random choice.
        artifacts: Folder that keeps the artifacts; None: they are not kept.
        thresholds: What replaces the recipe's thresholds, by field of `Thresholds`.
    """

    data: str = "fixture"
    limit: int | None = None
    broken_share: float = BROKEN_SHARE
    workers: int | None = None
    weights: str | None = None
    overrides: Mapping[str, object] = field(default_factory=dict)
    input_size: int | None = None
    batch_size: int = 1
    threads: int | None = None
    seed: int = 0
    artifacts: str | None = None
    thresholds: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """The settings as the report shows them, defaults filled in."""
        return {
            **asdict(self),
            "threads": self.threads or physical_cores(),
            "workers": self.workers or usable_cores(),
        }

    def of(self, model: str) -> RunSettings:
        """These settings with the weights of a model, if nobody names any."""
        return replace(self, weights=self.weights or default_weights(model))

    @property
    def reading(self) -> Reading:
        """How images are read."""
        return Reading(self.limit, self.broken_share, self.workers)

    def timing(self, input_size: tuple[int, int, int]) -> Timing:
        """The input at which latency is measured, given the model's standard size."""
        channels, height, width = input_size
        if self.input_size:
            height = width = self.input_size
        shape = (self.batch_size, channels, height, width)
        return Timing(shape, self.threads or physical_cores(), self.seed)


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
        data = open_data(settings.data, weights, settings.seed, progress, settings.reading)
    timing = settings.timing(spec.input_size)
    if spec.origin:
        check_classifier(model, timing.example())
    if complete:
        with phases.measure("complete the recipe"):
            recipe = completed(recipe, model, timing.example())
            if spec.origin:
                check_count(recipe, model)
    facts = source_facts(weights, data)
    folder = artifact_folder(settings.artifacts, stack)
    asked = recipe.promised(weights.source).changed(settings.thresholds)
    return Subject(model, recipe, weights.source, data, timing, folder, facts, asked)


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
    folder = Path(wanted).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {wanted} cannot be made: {error.strerror}.") from None
    return folder


def open_data(
    source: str,
    weights: Weights,
    seed: int,
    progress: Progress = silent,
    reading: Reading | None = None,
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
        reading=reading or Reading(),
        progress=progress,
    )
    check_classes(data, weights.classes, weights.num_classes)
    check_disjoint(data)
    return data
