"""Intervals against published examples, SciPy and simulated coverage."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from ptqbench.measurement.intervals import (
    effective_size,
    lag_one_correlation,
    paired_difference,
    proportion,
    ratio_interval,
)

# (a, b, c, d) as printed: both, only the first, only the second, neither; first - second.
PUBLISHED = {
    "Newcombe 1998, n = 50": ((36, 12, 2, 0), 0.2, 0.0569, 0.3404, 5e-5),
    "Cavo 2012 in Fagerland, Lydersen and Laake 2017, chapter 8": (
        (59, 6, 16, 80), -0.0621, -0.1186, -0.0046, 5e-5,
    ),
    "Bentur 2009 in Fagerland, Lydersen and Laake 2014": (
        (1, 1, 7, 12), -0.286, -0.507, -0.026, 5e-4,
    ),
    "Altman 2000, table 6.2": ((14, 5, 0, 22), 0.122, 0.011, 0.226, 1e-3),
}  # fmt: skip


@pytest.mark.parametrize("source", PUBLISHED)
def test_paired_difference_gives_the_published_intervals(source: str) -> None:
    table, value, low, high, tolerance = PUBLISHED[source]
    estimate = paired_difference(*table)
    # Ours is second - first, so signs and limits swap.
    assert -estimate.value == pytest.approx(value, abs=tolerance)
    assert -estimate.high == pytest.approx(low, abs=tolerance)
    assert -estimate.low == pytest.approx(high, abs=tolerance)
    assert estimate.n == sum(table)


def test_paired_difference_is_antisymmetric() -> None:
    forward, backward = paired_difference(1700, 31, 12, 257), paired_difference(1700, 12, 31, 257)
    assert forward.value == -backward.value
    assert forward.low == pytest.approx(-backward.high)
    assert forward.high == pytest.approx(-backward.low)


@pytest.mark.parametrize("table", [(50, 0, 0, 0), (0, 0, 0, 50), (40, 0, 0, 10), (1, 0, 0, 0)])
def test_without_discordant_items_the_interval_still_has_width(
    table: tuple[int, int, int, int],
) -> None:
    estimate = paired_difference(*table)
    assert estimate.value == 0
    assert -1 <= estimate.low < 0 < estimate.high <= 1


@pytest.mark.parametrize(("table", "value"), [((0, 30, 0, 0), -1), ((0, 0, 30, 0), 1)])
def test_paired_difference_stays_within_its_range(
    table: tuple[int, int, int, int], value: int
) -> None:
    estimate = paired_difference(*table)
    assert estimate.value == value
    assert -1 <= estimate.low <= value <= estimate.high <= 1


def test_paired_difference_takes_counts_whose_margins_exceed_64_bits() -> None:
    small, large = paired_difference(900, 20, 10, 70), paired_difference(*[
        count * 10**6 for count in (900, 20, 10, 70)
    ])  # fmt: skip
    assert large.value == small.value
    assert small.low < large.low < large.value < large.high < small.high


@pytest.mark.parametrize(
    "shares", [(0.88, 0.01, 0.008, 0.102), (0.80, 0.05, 0.02, 0.13), (0.40, 0.10, 0.10, 0.40)]
)
def test_paired_difference_covers_the_truth(shares: tuple[float, ...]) -> None:
    truth = shares[2] - shares[1]
    tables = np.random.default_rng(7).multinomial(500, shares, size=4000)
    estimates = [paired_difference(*map(int, table)) for table in tables]
    covered = np.mean([e.low <= truth <= e.high for e in estimates])
    assert 0.94 <= covered <= 0.98


@pytest.mark.parametrize("counts", [(-1, 1, 1, 1), (0, 0, 0, 0)])
def test_paired_difference_refuses_what_is_no_table(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="Expected four counts"):
        paired_difference(*counts)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (7, 19), (1977, 2000)]
)
def test_proportion_is_scipys_wilson_interval(successes: int, n: int, confidence: float) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    estimate = proportion(successes, n, confidence)
    assert estimate.value == successes / n
    assert estimate.low == pytest.approx(expected.low, abs=1e-12)
    assert estimate.high == pytest.approx(expected.high, abs=1e-12)


def test_proportion_is_exact_at_the_ends() -> None:
    assert proportion(0, 7).low == 0
    assert proportion(7, 7).high == 1


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_proportion_refuses_what_is_no_sample(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        proportion(successes, n)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [12, 20, 47, 160])
def test_ratio_interval_of_independent_pairs_is_scipys_exact_one(n: int, confidence: float) -> None:
    generator = np.random.default_rng(3)
    logs = generator.normal(1, 0.2, n)
    while lag_one_correlation(logs) > -1 / n:  # else fewer pairs than there are would count
        logs = generator.permutation(logs)
    estimate = ratio_interval(10 * np.exp(logs), np.full(n, 10.0), confidence)
    lower = stats.quantile_test(logs, p=0.5, alternative="less").confidence_interval
    upper = stats.quantile_test(logs, p=0.5, alternative="greater").confidence_interval
    one_sided = (1 + confidence) / 2
    assert estimate.value == pytest.approx(np.exp(np.median(logs)))
    assert estimate.high == pytest.approx(np.exp(lower(one_sided).high))
    assert estimate.low == pytest.approx(np.exp(upper(one_sided).low))
    assert estimate.n == n


def test_too_few_pairs_bound_nothing() -> None:
    estimate = ratio_interval([20.0, 21.0, 20.0, 22.0, 20.0], [10.0] * 5)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2, 0, np.inf))
    times = [20.0, 21.0, 20.0, 22.0, 20.0, 21.0]
    assert 0 < ratio_interval(times, [10.0] * 6).low < ratio_interval(times, [10.0] * 6).high < 3


def test_lag_one_correlation_is_numpys() -> None:
    series = autoregressive(np.random.default_rng(2), 0.6, 4000)
    assert lag_one_correlation(series) == pytest.approx(
        np.corrcoef(series[1:], series[:-1])[0, 1], abs=0.01
    )
    assert lag_one_correlation([3.0, 3.0, 3.0]) == 0


def test_alternating_values_count_as_independent_ones() -> None:
    assert effective_size([1.0, -1.0] * 10) == 20
    assert effective_size(np.linspace(0, 1, 20)) < 3


def autoregressive(generator: np.random.Generator, correlation: float, n: int) -> np.ndarray:
    """A series whose neighbours resemble each other, with the heavy tails of real times."""
    steps = generator.standard_t(3, size=n + 50)
    series = np.zeros(n + 50)
    for index in range(1, n + 50):
        series[index] = correlation * series[index - 1] + steps[index]
    return series[50:]


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("n", [20, 80])
def test_ratio_interval_covers_the_truth_of_correlated_pairs(n: int, correlation: float) -> None:
    generator = np.random.default_rng(n)

    def covers() -> bool:
        ratios = 2 * np.exp(0.05 * autoregressive(generator, correlation, n))
        estimate = ratio_interval(10 * ratios, np.full(n, 10.0))
        return estimate.low <= 2 <= estimate.high

    # 300 runs at 95 %: five in a hundred thousand of them would stay below 0.90.
    assert np.mean([covers() for _ in range(300)]) >= 0.90


@pytest.mark.parametrize("noise", ["normal", "spikes"])
def test_ratio_interval_covers_the_truth(noise: str) -> None:
    generator = np.random.default_rng(5)

    def times(mean: float) -> np.ndarray:
        logs = generator.normal(0, 0.05, 20)
        if noise == "spikes":  # now and then something else takes the core
            logs = logs + (generator.random(20) < 0.15) * generator.exponential(1.0, 20)
        return mean * np.exp(logs)

    def covers() -> bool:
        estimate = ratio_interval(times(20), times(10))
        return estimate.low <= 2 <= estimate.high

    assert 0.93 <= np.mean([covers() for _ in range(250)]) <= 1


def test_ratio_interval_widens_with_confidence() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.uniform(9, 11, (2, 30))
    wide, narrow = (ratio_interval(first, second, c) for c in (0.99, 0.95))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_ratio_interval_forgets_disturbed_pairs() -> None:
    first, second = [20.0] * 30, [10.0] * 30
    first[3] = 400.0
    second[17] = 900.0
    estimate = ratio_interval(first, second)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2, 2, 2))


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [float("nan")])]
)
def test_ratio_interval_refuses_what_are_no_pairs(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="Expected"):
        ratio_interval(first, second)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_fraction(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        ratio_interval([1.0], [1.0], confidence=confidence)
    with pytest.raises(ValueError, match="confidence"):
        proportion(1, 2, confidence)


def test_importing_intervals_does_not_import_scipy() -> None:
    code = (
        "import sys, ptqbench.measurement.intervals\n"
        "sys.exit(any(name.split('.')[0] == 'scipy' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
