"""Intervals: for ratios of paired times, for proportions and for their paired difference.

Everything here is a pure function of counts or samples. SciPy is imported when an interval
is computed, because importing it costs more than all intervals of a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOISE_TOLERANCE = 1.05
"""float32 against itself may differ by this factor before the machine counts as noisy."""


_ROUNDING = 1e-9
"""Deviations of logarithms that are rounding: clocks are read to a millionth of a sample."""


@dataclass(frozen=True)
class Estimate:
    """A number, how sure it is and what it rests on.

    Attributes:
        value: Point estimate.
        low: Lower limit of the confidence interval.
        high: Upper limit of the confidence interval.
        n: Sample size (pairs of times, or images).
    """

    value: float
    low: float
    high: float
    n: int


def ratio_interval(
    first_ms: Sequence[float] | NDArray[np.float64],
    second_ms: Sequence[float] | NDArray[np.float64],
    confidence: float = 0.95,
) -> Estimate:
    """Estimate how many times as long the first takes as the second, from paired times.

    The statistic is the median of the logarithm of each pair's ratio; the interval lies between
    two of its order statistics, whose ranks are quantiles of the binomial distribution (David
    and Nagaraja 2003, "Order Statistics", section 7.1). It is exact whatever the distribution,
    and takes no random numbers. A pair shares whatever slowed the machine down at its moment,
    and the median ignores the pairs that only one side was disturbed in.

    Neighbouring pairs that resemble each other say less than independent ones: the ranks are
    those of `effective_size` pairs, spread over all of them. Where these are too few for the
    confidence (five or fewer for 95 %), the interval is unbounded, from 0 to infinity.

    Args:
        first_ms: Times of the first side in ms, one for each pair, all above 0.
        second_ms: Times of the second side in ms, in the same order.
        confidence: Level of the interval.

    Raises:
        ValueError: Lengths differ, there are no pairs, or a time is not above 0.
    """
    first = np.asarray(first_ms, dtype=np.float64)
    second = np.asarray(second_ms, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(
            "Expected two equally long, non-empty series of times, "
            f"but got shapes {first.shape} and {second.shape}."
        )
    for times in (first, second):
        if not (np.isfinite(times).all() and (times > 0).all()):
            raise ValueError(f"Expected finite times above 0 ms, but got {times.min()} ms.")
    logs = np.log(first) - np.log(second)
    n = len(logs)
    value = float(np.exp(np.median(logs)))
    rank = _median_rank(n, effective_size(logs), confidence)
    if rank == 0:
        return Estimate(value, 0.0, math.inf, n)
    ordered = np.sort(logs)
    return Estimate(value, float(np.exp(ordered[rank - 1])), float(np.exp(ordered[n - rank])), n)


def lag_one_correlation(series: Sequence[float] | NDArray[np.float64]) -> float:
    """Correlation of each value with the one before it; 0 for a series constant but for rounding.

    Args:
        series: Values in the order in which they were measured.
    """
    centred = np.asarray(series, dtype=np.float64) - np.mean(series)
    power = float((centred**2).sum())
    if power <= len(centred) * _ROUNDING**2:
        return 0.0
    return float((centred[1:] * centred[:-1]).sum()) / power


def effective_size(series: Sequence[float] | NDArray[np.float64]) -> float:
    """How many independent values say as much about the centre as this series does.

    ``n (1 - r) / (1 + r)`` with the lag-1 correlation ``r``, as for a first-order
    autoregressive series (Bayley and Hammersley 1946). The estimate of ``r`` is biased by about
    ``-1 / n``, which is added; a negative one is taken as 0, so that it never narrows an
    interval.

    Args:
        series: Values in the order in which they were measured.
    """
    n = len(series)
    correlation = min(max(lag_one_correlation(series) + 1 / n, 0.0), 1.0)
    return n * (1 - correlation) / (1 + correlation)


def _median_rank(n: int, effective: float, confidence: float) -> int:
    """Rank, from 1, of the order statistic that bounds the median from below; 0: there is none."""
    from scipy.special import bdtr

    _check_confidence(confidence)
    size = min(n, math.floor(effective))
    tail = (1 - confidence) / 2
    rank = 0
    while rank < size // 2 and bdtr(rank, size, 0.5) <= tail:
        rank += 1
    return math.floor(rank * (n + 1) / (size + 1))


def proportion(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval (without continuity correction).

    Args:
        successes: Number of successes, from 0 to ``n``.
        n: Sample size, at least 1.
        confidence: Level of the interval.

    Raises:
        ValueError: The counts are not those of a sample.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"Expected 0 <= successes <= n and n >= 1, but got {successes} of {n}.")
    z = _normal_quantile(confidence)
    share = successes / n
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the limits are 0 and 1 in exact arithmetic; rounding must not move them.
    low = 0.0 if successes == 0 else (centre - reach) / scale
    high = 1.0 if successes == n else (centre + reach) / scale
    return Estimate(share, low, high, n)


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95
) -> Estimate:
    """The second proportion minus the first, both taken on the same items.

    Method 10 of Newcombe (1998), "Improved confidence intervals for the difference
    between binomial proportions based on paired data", Statistics in Medicine 17,
    2635-2650: Wilson intervals of the two proportions, squared and added, with their
    correlation phi estimated with a continuity correction. It keeps its coverage where
    few items are discordant, as is usual between float32 and int8.

    Args:
        both: Items on which both succeed.
        only_first: Items on which only the first succeeds.
        only_second: Items on which only the second succeeds.
        neither: Items on which none succeeds.
        confidence: Level of the interval.

    Raises:
        ValueError: A count is negative, or there are no items.
    """
    counts = (both, only_first, only_second, neither)
    if min(counts) < 0 or sum(counts) < 1:
        raise ValueError(f"Expected four counts of at least one item, but got {counts}.")
    n = sum(counts)
    first = proportion(both + only_first, n, confidence)
    second = proportion(both + only_second, n, confidence)
    phi = _correlation(*counts)
    # Divided once: the difference of two rounded quotients is not always that of the counts.
    difference = (only_second - only_first) / n
    below = _combine(second.value - second.low, first.high - first.value, phi)
    above = _combine(second.high - second.value, first.value - first.low, phi)
    return Estimate(difference, max(-1.0, difference - below), min(1.0, difference + above), n)


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Newcombe's phi of a paired table: corrected towards 0 where it is positive."""
    # Python's integers: the product of four margins leaves 64 bits at 10,000 images.
    margins = (
        (both + only_first)
        * (only_second + neither)
        * (both + only_second)
        * (only_first + neither)
    )
    if margins == 0:
        return 0.0
    determinant = both * neither - only_first * only_second
    half = (both + only_first + only_second + neither) / 2
    corrected = max(determinant - half, 0.0) if determinant > 0 else float(determinant)
    return corrected / math.sqrt(margins)


def _combine(one: float, other: float, phi: float) -> float:
    """Length of the sum of two deviations with correlation ``phi``."""
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _normal_quantile(confidence: float) -> float:
    """The standard normal deviate that ``confidence`` lies within, on both sides."""
    from scipy.special import ndtri

    _check_confidence(confidence)
    return float(ndtri(0.5 + confidence / 2))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"Expected a confidence between 0 and 1, but got {confidence}.")


def noise_factor(noise: Estimate) -> float:
    """The factor, 1 or more, that noise could explain: 1 where float32 against itself is close."""
    factor = max(noise.high, 1 / noise.low, 1.0) if noise.low > 0 else math.inf
    return factor if factor > NOISE_TOLERANCE else 1.0
