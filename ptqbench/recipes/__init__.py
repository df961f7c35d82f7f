"""One recipe per architecture: how it is quantized and what must come of it."""

from __future__ import annotations

from ptqbench.recipes import (  # isort: skip  (the order of registration is that of reports)
    resnet,
    mobilenet,
    shufflenet,
    squeezenet,
    efficientnet,
)
from ptqbench.recipes.recipe import RECIPES, Recipe, Thresholds

__all__ = [
    "RECIPES",
    "Recipe",
    "Thresholds",
    "efficientnet",
    "mobilenet",
    "resnet",
    "shufflenet",
    "squeezenet",
]
