"""The recipes as the settings see them."""

from __future__ import annotations

from ptqbench.recipes import RECIPES
from ptqbench.settings.thresholds import Thresholds


class RecipeCatalog:
    """Implements `settings.model_catalog.ModelCatalog` with the registered recipes."""

    def names(self) -> list[str]:
        """Return the names of all models that have a recipe, in order of registration."""
        return RECIPES.names()

    def backend(self, model: str) -> str:
        """Return the backend that the recipe recommends."""
        return RECIPES.get(model).backend

    def thresholds(self, model: str, weights: str | None = None) -> Thresholds:
        """Return the thresholds of the recipe, under weights if their source is named."""
        recipe = RECIPES.get(model)
        return recipe.thresholds if weights is None else recipe.thresholds_for(weights)


CATALOG = RecipeCatalog()
"""All registered recipes."""
