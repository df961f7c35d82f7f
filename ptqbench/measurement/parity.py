"""Does a file, executed by its kernels, compute what simulating it in float32 promises?

Tools that quantize report the accuracy of a simulation: float32 arithmetic that is rounded where
the file says so. What kernels execute differs from it where sums saturate, are rounded in other
places, or are taken apart in other ways. Both are compared with float32 on the same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.core.progress import Progress, silent
from ptqbench.measurement.intervals import Estimate
from ptqbench.measurement.sqnr import LogitNoise

if TYPE_CHECKING:
    from ptqbench.data.image_set import ImageSet

EQUAL_DB = 80.0
"""SQNR above which logits count as equal: what is left is the rounding of float32 sums."""
IMAGES = (16, 64, 192)
"""Images that are compared, until the verdict is certain."""
BATCH = 16
"""Images in a forward pass."""
_NO_IMAGES = LogitNoise()


@dataclass(frozen=True)
class Parity:
    """An int8 file as its kernels execute it, beside its simulation.

    Attributes:
        simulated: The simulation against float32.
        executed: The kernels against float32.
        between: The kernels against the simulation.
        ratio: Noise of the simulation as signal, that of the kernels as noise.
        agreed: Images for which kernels and simulation predict the same class.
    """

    simulated: LogitNoise = _NO_IMAGES
    executed: LogitNoise = _NO_IMAGES
    between: LogitNoise = _NO_IMAGES
    ratio: LogitNoise = _NO_IMAGES
    agreed: int = 0

    @classmethod
    def of(cls, float32: Tensor, simulated: Tensor, executed: Tensor) -> Parity:
        """Compare a batch of logits, each ``N×K`` float32."""
        return cls(
            LogitNoise.of(float32, simulated),
            LogitNoise.of(float32, executed),
            LogitNoise.of(simulated, executed),
            LogitNoise.of_powers(
                _power(float32.double() - simulated.double()),
                _power(float32.double() - executed.double()),
            ),
            int((simulated.argmax(1) == executed.argmax(1)).sum()),
        )

    def __add__(self, other: Parity) -> Parity:
        return Parity(
            self.simulated + other.simulated,
            self.executed + other.executed,
            self.between + other.between,
            self.ratio + other.ratio,
            self.agreed + other.agreed,
        )

    @property
    def images(self) -> int:
        """Images compared."""
        return self.ratio.n

    @property
    def change(self) -> Estimate:
        """SQNR of the executed file less that of the simulated one, in dB: a loss is negative.

        Zero if the logits are equal.
        """
        if self.between.sqnr().value >= EQUAL_DB:
            return Estimate(0.0, 0.0, 0.0, self.images)
        if math.isinf(self.executed.noise):
            return Estimate(-math.inf, -math.inf, -math.inf, self.images)
        return self.ratio.sqnr()


def measure_parity(
    float32: Model,
    int8: Model,
    simulation: Model,
    images: ImageSet,
    *,
    stop_when: Callable[[Parity], bool],
    progress: Progress = silent,
) -> Parity:
    """Compare an executed file with its simulation on a few images, more until ``stop_when`` holds.

    Args:
        float32: The original.
        int8: The file as it is executed.
        simulation: The file in float32, rounded where it says so (``Backend.simulation``).
        images: The evaluation images, of which the first `IMAGES` are taken.
        stop_when: Whether the numbers so far suffice for a verdict.
        progress: Progress callback; counts images.

    Raises:
        SimulationError: An operator of the file cannot be simulated.
    """
    parity, start = Parity(), 0
    for stop in (min(stop, images.count) for stop in IMAGES):
        for pixels, _ in images.batches(start, stop, BATCH):
            with torch.inference_mode():
                parity += Parity.of(float32(pixels), simulation(pixels), int8(pixels))
            progress("simulate the kernels", parity.images, stop)
        start = stop
        if stop == images.count or stop_when(parity):
            break
    return parity


def _power(logits: Tensor) -> Tensor:
    return logits.square().sum(1)
