"""Calibrate prepared modules, once for all backends that need the same calibration.

Engines that accumulate alike get the same observers in the same places, and what the observers
record does not depend on the engine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ptqbench.core.phases import Phases
from ptqbench.errors import UserError
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.recipes import CompletedRecipe


def calibrate(prepared: nn.Module, batches: Iterable[Tensor], phases: Phases) -> int:
    """Run the batches through a prepared module.

    Args:
        prepared: Module with observers.
        batches: ``N×C×H×W`` float32, streamed.
        phases: Where the forward passes are counted.

    Returns:
        The number of images.

    Raises:
        UserError: There was no image at all.
    """
    count = 0
    with torch.inference_mode():
        for batch in batches:
            with phases.measure("calibration", forward=True):
                prepared(batch)
            count += len(batch)
    if not count:
        raise UserError("There are no calibration images: quantization needs at least one.")
    return count


@dataclass(frozen=True)
class Calibrated:
    """A module whose observers have seen the calibration images.

    Attributes:
        module: Prepared; conversion uses it up.
        images: Number of calibration images.
        record: What the build recorded about fusion and observers.
    """

    module: nn.Module
    images: int
    record: BuildRecord


class CalibrationCache:
    """The last calibrated module of one model and one set of calibration images."""

    def __init__(self) -> None:
        self._key: tuple[str, bool] | None = None
        self._cached: Calibrated | None = None

    def get_or_create(
        self, recipe: CompletedRecipe, saturates: bool, create: Callable[[], Calibrated]
    ) -> Calibrated:
        """Return a copy of the cached module, created first if another one is cached.

        Args:
            recipe: Recipe that the module is prepared with.
            saturates: Whether it is for kernels that saturate.
            create: Prepares and calibrates a module.
        """
        key = (recipe.hash, saturates)
        if self._cached is None or key != self._key:
            self._key, self._cached = None, None  # never two of them in memory
            self._cached, self._key = create(), key
        return replace(self._cached, module=copy.deepcopy(self._cached.module))
