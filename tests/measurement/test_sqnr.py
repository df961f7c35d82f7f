"""SQNR of the logits: its value by hand, its interval against a bootstrap and a jackknife."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from ptqbench.measurement.intervals import Estimate
from ptqbench.measurement.sqnr import LogitNoise, decibels

Powers = NDArray[np.float64]


def powers(n: int, seed: int, spread: float = 0.8) -> tuple[Powers, Powers]:
    """Signal and noise of images: correlated, the noise with a tail, as networks have it."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=n)
    signal = np.exp(0.3 * common + 0.2 * generator.normal(size=n))
    noise = 0.01 * np.exp(0.3 * common + spread * generator.normal(size=n))
    return signal, noise


def sums(signal: Powers, noise: Powers) -> LogitNoise:
    """From powers to logits and back: an image's logits are (√signal, 0) and (√signal, √noise)."""
    zeros = np.zeros(len(signal))
    reference = np.stack([np.sqrt(signal), zeros], axis=1)
    quantized = np.stack([np.sqrt(signal), np.sqrt(noise)], axis=1)
    return LogitNoise.of(torch.from_numpy(reference), torch.from_numpy(quantized))


def ratio(signal: Powers, noise: Powers, axis: int = -1) -> Powers:
    return 10 * np.log10(signal.sum(axis) / noise.sum(axis))


def test_the_value_is_signal_power_over_noise_power() -> None:
    signal, noise = powers(300, 0)
    power = sums(signal, noise)
    assert power.sqnr().value == pytest.approx(float(ratio(signal, noise)), rel=1e-12)
    assert power.signal_squares == pytest.approx((signal**2).sum())
    assert power.noise_squares == pytest.approx((noise**2).sum())
    assert power.products == pytest.approx((signal * noise).sum())


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_that_of_a_bootstrap(seed: int) -> None:
    signal, noise = powers(2000, seed)
    estimate = sums(signal, noise).sqnr()
    reference = stats.bootstrap(
        (signal, noise), ratio, paired=True, vectorized=True, n_resamples=4000,
        method="BCa", rng=0, batch=200,
    ).confidence_interval  # fmt: skip
    assert estimate.low == pytest.approx(float(reference.low), abs=0.03)
    assert estimate.high == pytest.approx(float(reference.high), abs=0.03)
    assert 0.3 < estimate.high - estimate.low < 0.5


@pytest.mark.parametrize("n", [2, 7, 40])
def test_the_interval_is_student_times_the_infinitesimal_jackknife(n: int) -> None:
    signal, noise = powers(n, 5)
    influence = 10 / math.log(10) * (signal / signal.mean() - noise / noise.mean())
    error = float(np.std(influence, ddof=1)) / math.sqrt(n)
    for confidence in (0.95, 0.99):
        low, high = stats.t.interval(confidence, n - 1, float(ratio(signal, noise)), error)
        estimate = sums(signal, noise).sqnr(confidence)
        assert (estimate.low, estimate.high, estimate.n) == pytest.approx((low, high, n))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = 10 * math.log10(math.exp(0.02) / (0.01 * math.exp(0.32)))
    covered = 0
    for seed in range(400):
        estimate = sums(*powers(200, seed)).sqnr()
        covered += estimate.low <= truth <= estimate.high
    # 95 % less what the tail of the noise costs; a binomial of 400 at 0.93 ends at 0.90.
    assert 0.90 <= covered / 400 <= 0.98


def test_batches_add_up() -> None:
    signal, noise = powers(100, 1)
    parts = sum((sums(signal[i : i + 7], noise[i : i + 7]) for i in range(0, 100, 7)), LogitNoise())
    assert parts.sqnr().low == pytest.approx(sums(signal, noise).sqnr().low)
    assert parts.n == 100


def test_one_image_says_nothing_about_others() -> None:
    estimate = sums(*powers(1, 0)).sqnr()
    assert math.isfinite(estimate.value)
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    equal = sums(np.ones(1), np.zeros(1)).sqnr()
    assert equal == Estimate(math.inf, -math.inf, math.inf, 1)


def test_equal_logits_and_logits_that_are_no_numbers() -> None:
    assert sums(np.ones(4), np.zeros(4)).sqnr() == Estimate(math.inf, math.inf, math.inf, 4)
    reference = torch.ones(4, 3)
    for value in (math.nan, math.inf):
        broken = reference.clone()
        broken[1, 2] = value
        lost = LogitNoise.of(reference, broken) + sums(*powers(50, 0))
        assert lost.sqnr() == Estimate(-math.inf, -math.inf, -math.inf, 54)


def test_images_that_are_all_alike_have_an_interval_without_length() -> None:
    estimate = sums(np.full(10, 2.0), np.full(10, 0.02)).sqnr()
    assert estimate.low == pytest.approx(20, abs=1e-6)
    assert estimate.high == pytest.approx(20, abs=1e-6)


def test_a_confidence_is_between_0_and_1() -> None:
    with pytest.raises(ValueError, match=r"but got 1\.0"):
        sums(*powers(5, 0)).sqnr(1.0)


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [(1, 0, math.inf), (0, 1, -math.inf), (1, math.inf, -math.inf), (100, 1, 20), (0, 0, math.inf)],
)
def test_decibels(signal: float, noise: float, expected: float) -> None:
    assert decibels(signal, noise) == pytest.approx(expected)
