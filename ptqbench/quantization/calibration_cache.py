"""A calibrated module that several backends convert, each a copy of its own.

Engines that sum alike are given the same observers in the same places, and what these see
does not depend on the engine: showing them the images once is enough.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from ptqbench.quantization.build_record import BuildRecord
from ptqbench.recipes import Recipe


@dataclass(frozen=True)
class Calibrated:
    """A module whose observers have seen the calibration images.

    Attributes:
        module: Prepared; conversion uses it up.
        images: How many images it has seen.
        record: What was seen of fusion and observers.
    """

    module: nn.Module
    images: int
    record: BuildRecord


class Calibrations:
    """Keeps the last calibrated module of one model and one set of calibration images."""

    def __init__(self) -> None:
        self._key: tuple[str, bool] | None = None
        self._kept: Calibrated | None = None

    def find(self, recipe: Recipe, saturates: bool, make: Callable[[], Calibrated]) -> Calibrated:
        """A copy of the kept module, made first if what is kept was made otherwise.

        Args:
            recipe: What the module is prepared by.
            saturates: Whether it is for kernels that saturate.
            make: Makes it.
        """
        key = (recipe.hash, saturates)
        if self._kept is None or key != self._key:
            self._key, self._kept = None, None  # never two of them in memory
            self._kept, self._key = make(), key
        return replace(self._kept, module=copy.deepcopy(self._kept.module))
