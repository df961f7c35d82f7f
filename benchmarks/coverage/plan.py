"""What is measured of each model, and how much: fewer images where a picture costs much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from benchmarks.probe import giga_macs
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.core.package_data import SHIPPED
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.thresholds import Thresholds

EAGER: Final = "eager"
"""Name of the case that is quantized in eager mode; the others are named by backend."""
EVALUATION, CALIBRATION = (300, 32, 12), (128, 24, 12)
"""Images at most, at least, and of giants."""
TRAINED_IMAGES = 2_000
"""Evaluation images under trained weights: fewer could hardly show that 99 % of top-1 is kept."""
GIGA_MACS, GIANT = 200, 50
"""Multiply-adds (1e9) of a pass over the images, and those of one image that make a giant."""


@dataclass(frozen=True)
class Job:
    """A case that a command measures, with a recipe that promises nothing."""

    case: str
    recipe: Recipe
    backend: str
    weights: str
    images: int


def image_count(cost: float, bounds: tuple[int, int, int]) -> int:
    """Return the number of images for a model that takes ``cost`` 1e9 multiply-adds an image."""
    most, least, of_giants = bounds
    return of_giants if cost > GIANT else max(least, min(most, int(GIGA_MACS / max(cost, 1e-9))))


def uncounted(recipe: Recipe) -> Recipe:
    """Return a recipe without the counts that come from a graph; one written by hand stays."""
    count = None if recipe.fusion is None else recipe.int8_modules
    return replace(recipe, int8_modules=count, fused_groups=None)


def open_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe without what is known from measuring; what is written by hand stays."""
    unknown = uncounted(recipe)
    return replace(unknown, backend="", thresholds=Thresholds(), probe={}, unsupported={})


def method(recipe: Recipe, backend: str, instruction_set: str) -> str:
    """Return the hash of how a recipe quantizes for a backend, whatever its gates require."""
    # The record is of 7-bit weights and biases as they were: pairs leave every weight at least that
    # range, and corrected biases only gain.
    opened = replace(open_recipe(recipe), bias_correction=False)
    if opened.spare_bit == "pairs":
        opened = replace(opened, spare_bit="weights")
    if not BACKENDS.get(backend).saturates(instruction_set):
        opened = replace(opened, spare_bit="none")
    return opened.hash


def cases_of(model: str) -> dict[str, tuple[Recipe, str]]:
    """Return the recipe and the backend of each case of a model, by its name."""
    recipe = RECIPES.get(model)
    cases = {backend.name: (recipe, backend.name) for backend in TORCH_ENGINES}
    if MODELS.get(model).quantizable is not None and recipe.flow != EAGER:
        cases[EAGER] = (replace(uncounted(recipe), flow=EAGER), recipe.backend)
    return cases


def job(model: str, case: str) -> Job:
    """Return what has to be measured for a case of a model."""
    recipe, backend = cases_of(model)[case]
    cost = giga_macs(MODELS.get(model))
    calibrated = min(recipe.calibration_images, image_count(cost, CALIBRATION))
    opened = replace(open_recipe(recipe), backend=recipe.backend, calibration_images=calibrated)
    if model in SHIPPED:
        return Job(case, opened, backend, "fixture", TRAINED_IMAGES)
    return Job(case, opened, backend, "probe", image_count(cost, EVALUATION))
