"""Quantization noise of the logits: the SQNR of a set of images and how sure it is."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from torch import Tensor

from ptqbench.measurement.intervals import Estimate

_PER_NEPER = 10 / math.log(10)
"""dB of a power ratio of e."""


@dataclass(frozen=True)
class LogitNoise:
    """Sums over images of the power of float32's logits and of what int8 adds to them.

    An image's signal is the sum of its squared float32 logits, its noise the sum of the
    squared differences. Five sums are all that the ratio and its interval need, so images
    can be forgotten as they stream by.

    Attributes:
        n: Images.
        signal: Sum of the signals.
        noise: Sum of the noises; infinite if an int8 logit is not a number.
        signal_squares: Sum of the squared signals.
        noise_squares: Sum of the squared noises.
        products: Sum of signal times noise.
    """

    n: int = 0
    signal: float = 0.0
    noise: float = 0.0
    signal_squares: float = 0.0
    noise_squares: float = 0.0
    products: float = 0.0

    @classmethod
    def of(cls, reference: Tensor, quantized: Tensor) -> LogitNoise:
        """The sums over a batch.

        Args:
            reference: Finite float32 logits ``N×K``.
            quantized: int8's logits ``N×K``.
        """
        exact = reference.double()
        return cls.of_powers(exact.square().sum(1), (exact - quantized.double()).square().sum(1))

    @classmethod
    def of_powers(cls, signal: Tensor, noise: Tensor) -> LogitNoise:
        """The sums over the images of a batch.

        Args:
            signal: Finite power of each image's signal, ``N`` float64.
            noise: Power of each image's noise, ``N`` float64.
        """
        if not bool(noise.isfinite().all()):
            return cls(len(signal), float(signal.sum()), math.inf)
        return cls(
            len(signal),
            float(signal.sum()),
            float(noise.sum()),
            float(signal.square().sum()),
            float(noise.square().sum()),
            float((signal * noise).sum()),
        )

    def __add__(self, other: LogitNoise) -> LogitNoise:
        return LogitNoise(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def sqnr(self, confidence: float = 0.95) -> Estimate:
        """Signal-to-quantization-noise ratio of the logits in dB, with its interval.

        The ratio of two sums over a sample of images is a ratio estimator. Its interval is
        that of the delta method on the logarithm (Cochran 1977, "Sampling Techniques",
        section 6.4, which is the infinitesimal jackknife here), with Student's
        distribution for small samples. It takes no random numbers. One image says nothing
        about others: its interval has no ends.

        Args:
            confidence: Level of the interval.

        Returns:
            dB: infinite if all logits are equal, minus infinity if int8 gives what is
            not a number.
        """
        value = decibels(self.signal, self.noise)
        if self.n < 2:
            return Estimate(value, -math.inf, math.inf, self.n)
        if math.isinf(value):
            return Estimate(value, value, value, self.n)
        reach = _PER_NEPER * _student_quantile(confidence, self.n - 1) * self._log_error()
        return Estimate(value, value - reach, value + reach, self.n)

    def _log_error(self) -> float:
        """Standard error of the natural logarithm of the ratio."""
        signal, noise = self.signal / self.n, self.noise / self.n
        # Relative deviations signal_i / mean - noise_i / mean have the mean zero, so that
        # the sum of their squares is already that around their mean.
        squares = (
            self.signal_squares / signal**2
            + self.noise_squares / noise**2
            - 2 * self.products / (signal * noise)
        )
        return math.sqrt(max(0.0, squares) / (self.n * (self.n - 1)))


def decibels(signal: float, noise: float) -> float:
    """Power ratio in dB: ``10 log10(signal / noise)``; infinite without noise."""
    if noise == 0:
        return math.inf
    if signal == 0 or math.isinf(noise):
        return -math.inf
    return 10 * math.log10(signal / noise)


def _student_quantile(confidence: float, freedom: int) -> float:
    """The deviate that ``confidence`` of Student's distribution lies within."""
    from scipy.special import stdtrit

    if not 0 < confidence < 1:
        raise ValueError(f"Expected a confidence between 0 and 1, but got {confidence}.")
    return float(stdtrit(freedom, 0.5 + confidence / 2))
