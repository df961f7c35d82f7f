"""The subject of a model's cases: network, weights, images, input, thresholds and folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import int8_file_name
from ptqbench.backends.backend import Backend
from ptqbench.core.cpu_count import physical_cores, usable_cores
from ptqbench.core.names import safe_file_name
from ptqbench.data.image_set import Data
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.quantization.canonical import quantizable_model
from ptqbench.quantization.completion import complete_recipe
from ptqbench.recipes import CompletedRecipe, Recipe
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.thresholds import Thresholds

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
        canonical: The model as it is quantized (`quantization.canonical`); None: not made yet.
        completed: The recipe, completed from the canonical model's graph; None: not yet.
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
    canonical: nn.Module | None = None
    completed: CompletedRecipe | None = None

    def complete(self) -> CompletedRecipe:
        """Return the recipe with everything that the model's graph determines.

        Raises:
            UserError: The model cannot be traced although its recipe needs it.
        """
        return self.completed or complete_recipe(
            self.recipe, self.quantizable(), self.latency.example(), original=self.model
        )

    def quantizable(self) -> nn.Module:
        """Return the canonical model, which is what is quantized.

        Raises:
            UserError: The model is not the same twice, or computes what its graph does not show.
        """
        if self.canonical is not None:
            return self.canonical
        return quantizable_model(
            self.model, self.recipe, self.inspection_images(), (self.latency.example(),)
        )

    def int8_path(self, backend: Backend) -> Path:
        """Path of the int8 artifact for a backend."""
        return self.folder / int8_file_name(self.recipe.model, backend)

    def float_path(self, backend: Backend) -> Path:
        """Path of the float32 artifact for the runtime of a backend."""
        return self.folder / f"{safe_file_name(self.recipe.model)}.float32{backend.suffix}"

    def with_note(self, sentence: str) -> Subject:
        """Return this subject with one more note for the report."""
        notes = self.facts.get("notes")
        before = notes if isinstance(notes, tuple) else ()
        return replace(self, facts={**self.facts, "notes": (*before, sentence)})

    def calibration_batches(self) -> Iterator[Tensor]:
        """Stream the images that the recipe calibrates with, in batches ``N×C×H×W`` float32."""
        return calibration_batches(self.data, self.recipe)

    @property
    def calibration_count(self) -> int:
        """Number of images that the recipe calibrates with, undecodable ones included."""
        return min(self.recipe.calibration_images, self.data.calibration.count)

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
