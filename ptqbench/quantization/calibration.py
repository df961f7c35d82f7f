"""Calibrate prepared modules, once for all backends that need the same calibration.

Engines get the same observers in the same places unless activations give up a bit for some of them,
and what observers record does not depend on the engine; weights are quantized afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver, ObserverBase

from ptqbench.core.phases import Phases
from ptqbench.errors import UserError
from ptqbench.quantization.bias_correction import MeanInput
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.quantization.fast_histogram import QuickHistogramObserver
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
    QuickHistogramObserver.latest = None
    if not count:
        raise UserError("There are no calibration images: quantization needs at least one.")
    _give_zeros_a_range(prepared)
    return count


def _give_zeros_a_range(prepared: nn.Module) -> None:
    """Let observers that saw nothing but zeros have the range 0 to 1, in place.

    Zeros are exact in any range. That of torch is as small as a float allows, and QNNPACK refuses
    to add values whose scales are so far apart.
    """
    ranges: dict[nn.Module, nn.Module] = {}
    for name, observer in list(prepared.named_modules(remove_duplicate=False)):
        low, high = getattr(observer, "min_val", None), getattr(observer, "max_val", None)
        if not isinstance(observer, ObserverBase) or low is None or high is None:
            continue
        if low.numel() == 1 and low == high == 0:
            if observer not in ranges:
                wider = MinMaxObserver(dtype=observer.dtype)
                wider.min_val, wider.max_val = torch.tensor(0.0), torch.tensor(1.0)
                ranges[observer] = wider
            prepared.set_submodule(name, ranges[observer])


@dataclass(frozen=True)
class Calibrated:
    """A module whose observers have seen the calibration images.

    Attributes:
        module: Prepared; conversion uses it up.
        images: Number of calibration images.
        record: What the build recorded about fusion and observers.
        means: Of the inputs of its layers, by path.
    """

    module: nn.Module
    images: int
    record: BuildRecord
    means: Mapping[str, MeanInput]


class CalibrationCache:
    """The last calibrated module of one model and one set of calibration images."""

    def __init__(self) -> None:
        self._key: tuple[str, bool] | None = None
        self._cached: Calibrated | None = None

    def get_or_create(
        self, recipe: CompletedRecipe, seven_bits: bool, create: Callable[[], Calibrated]
    ) -> Calibrated:
        """Return a copy of the cached module, created first if another one is cached.

        Args:
            recipe: Recipe that the module is prepared with.
            seven_bits: Whether its activations give up a bit.
            create: Prepares and calibrates a module.
        """
        key = (recipe.hash, seven_bits)
        if self._cached is None or key != self._key:
            self._key, self._cached = None, None  # never two of them in memory
            self._cached, self._key = create(), key
        return replace(self._cached, module=copy.deepcopy(self._cached.module))
