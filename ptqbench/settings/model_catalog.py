"""What the settings need to know about models, without importing recipes."""

from __future__ import annotations

from typing import Protocol

from ptqbench.settings.thresholds import Thresholds


class ModelCatalog(Protocol):
    """Names of the models, and what their recipes recommend and require."""

    def names(self) -> list[str]:
        """Return the names of all models, in the order of reports."""

    def backend(self, model: str) -> str:
        """Return the backend that a model's recipe recommends."""

    def thresholds(self, model: str, weights: str | None = None) -> Thresholds:
        """Return the thresholds of a model's recipe.

        Args:
            model: Name of the model.
            weights: Source of the weights, which may require less; None: any.
        """
