"""What is measured of each model, and how much: fewer images where a picture costs much."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.probe import giga_macs
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.package_data import SHIPPED
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.thresholds import Thresholds

EAGER = "eager"
"""Name of the case that is quantized in eager mode; the others are named by backend."""
EVALUATION, CALIBRATION = (300, 32, 12), (128, 24, 12)
"""Images at most, at least, and of giants."""
TRAINED_IMAGES = 2_000
"""Evaluation images under trained weights, which must keep 99 % of their top-1: with fewer images
hardly any interval is short enough to tell."""
GIGA_MACS, GIANT = 200, 50
"""Multiply-adds (1e9) of a pass over the images, and those of one image that make a giant."""


@dataclass(frozen=True)
class Job:
    """Cases of one model that one command measures, with a recipe that promises nothing."""

    recipe: Recipe
    weights: str
    images: int
    backends: tuple[str, ...]
    eager: bool = False


def image_count(cost: float, bounds: tuple[int, int, int]) -> int:
    """Return the number of images for a model that takes ``cost`` 1e9 multiply-adds an image."""
    most, least, of_giants = bounds
    return of_giants if cost > GIANT else max(least, min(most, int(GIGA_MACS / max(cost, 1e-9))))


def open_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe without what is known from measuring; what is written by hand stays."""
    derived = recipe.fusion is None
    return replace(
        recipe,
        backend="",
        thresholds=Thresholds(),
        int8_modules=None if derived else recipe.int8_modules,
        fused_groups=None,
        probe={},
        unsupported={},
    )


def eager(recipe: Recipe) -> Recipe:
    """Return the same recipe for eager mode; groups are found in the quantizable variant."""
    if recipe.flow == EAGER:
        return recipe
    counted = None if recipe.fusion is None else recipe.int8_modules
    return replace(recipe, flow=EAGER, int8_modules=counted, fused_groups=None)


def method(recipe: Recipe, backend: str, instruction_set: str | None) -> str:
    """Hash of how a recipe quantizes for a backend, whatever its gates require."""
    opened = open_recipe(recipe)
    if not BACKENDS.get(backend).saturates(instruction_set):
        opened = replace(opened, spare_bit="none")
    return opened.hash


def cases_of(model: str) -> tuple[str, ...]:
    """Return the names of a model's cases."""
    both = MODELS.get(model).quantizable is not None and RECIPES.get(model).flow == "fx"
    return (*BACKENDS.names(), *((EAGER,) if both else ()))


def jobs(model: str, cases: tuple[str, ...]) -> list[Job]:
    """Return what has to be measured for some cases of a model."""
    recipe = RECIPES.get(model)
    weights = "fixture" if model in SHIPPED else "probe"
    cost = giga_macs(MODELS.get(model))
    images = TRAINED_IMAGES if model in SHIPPED else image_count(cost, EVALUATION)
    calibrated = min(recipe.calibration_images, image_count(cost, CALIBRATION))
    opened = replace(open_recipe(recipe), backend=recipe.backend, calibration_images=calibrated)
    backends = tuple(name for name in cases if name != EAGER)
    planned = [Job(opened, weights, images, backends)] if backends else []
    if EAGER in cases:
        planned.append(Job(eager(opened), weights, images, (recipe.backend,), eager=True))
    return planned
