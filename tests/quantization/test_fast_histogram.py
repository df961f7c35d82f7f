"""The quick search for a histogram's range finds what torch's own finds, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.ao.quantization import HistogramObserver

from ptqbench.quantization import fast_histogram
from ptqbench.quantization.fast_histogram import (
    QuickHistogramObserver,
    quantization_errors,
    steps_of,
)

VALUES = {
    "both signs": lambda x: x,
    "after a ReLU": lambda x: x.relu(),
    "after a ReLU6": lambda x: (3 * x).clamp(0, 6),
    "long tail": lambda x: x.exp(),
    "outliers": lambda x: x**5,
    "far from zero": lambda x: 1000 + x,
    "few": lambda x: x[0, 0, 0],
    "two": lambda x: (x > 0).float(),
    "one": lambda x: torch.full_like(x, 3.0),
    "none but zero": torch.zeros_like,
}


def seen(observer: HistogramObserver, kind: str, seed: int) -> HistogramObserver:
    """An observer after three batches, each wider than the one before."""
    generator = torch.Generator().manual_seed(seed)
    for widening in (1.0, 1.3, 1.7):
        values = torch.randn((8, 16, 8, 8), generator=generator)
        observer(widening * VALUES[kind](values))
    return observer


@pytest.mark.filterwarnings("ignore:.*reduce_range.*:UserWarning")
@pytest.mark.parametrize("kind", VALUES)
def test_ranges_are_those_of_torch(kind: str) -> None:
    for seed, reduce_range in enumerate((False, True)):
        quick = seen(QuickHistogramObserver(reduce_range=reduce_range), kind, seed)
        expected = seen(HistogramObserver(reduce_range=reduce_range), kind, seed)
        assert torch.equal(quick.histogram, expected.histogram)
        assert bits(quick.calculate_qparams()) == bits(expected.calculate_qparams())


@pytest.mark.parametrize("middle", [0.0, 3.0, -1e4, 1e7])
@pytest.mark.parametrize("growth", [(0.0, 1e-6), (1e-3, 0.0), (0.4, 2.0), (300.0, 7.0)])
def test_counts_move_to_a_wider_range_as_in_torch(
    middle: float, growth: tuple[float, float]
) -> None:
    generator = torch.Generator().manual_seed(7)
    counts = torch.rand(2048, generator=generator) * 1e6
    before = torch.tensor(middle - 1), torch.tensor(middle + 2)
    after = before[0] - growth[0], before[1] + growth[1]
    observers = QuickHistogramObserver(), HistogramObserver()
    quick, expected = (each._upscale_histogram(counts, *before, *after) for each in observers)
    assert torch.equal(quick, expected)


def test_the_same_memory_is_counted_once_but_not_what_was_changed_in_place(monkeypatch) -> None:
    calls = []
    original = fast_histogram.bin_counts

    def counted(values: Tensor, *rest: float) -> Tensor:
        calls.append(values.numel())
        return original(values, *rest)

    monkeypatch.setattr(fast_histogram, "bin_counts", counted)
    quick, expected = QuickHistogramObserver(), HistogramObserver()
    values = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(3))
    copy = values.clone()
    moved = [values, values.view(2, 2, 4, 5, 5).transpose(1, 2), values.flatten(1)]
    for each in (*moved, values[:1].expand(2, 8, 5, 5), copy, values.clamp_(-1, 1), values[:1]):
        quick(each)
        expected(each)
        assert torch.equal(quick.histogram, expected.histogram)
    assert calls == [400, 400, 400, 400, 200]
    QuickHistogramObserver.latest = None


@pytest.mark.filterwarnings("ignore:torch.inf detected:UserWarning")
def test_values_that_are_not_finite_and_no_values_at_all() -> None:
    quick, expected = QuickHistogramObserver(), HistogramObserver()
    batches = (torch.randn(3, 500), torch.empty(0, 4), torch.tensor([1.0, torch.inf, -2.0]))
    for batch in batches:
        assert quick(batch) is batch
        expected(batch)
    assert torch.equal(quick.histogram, expected.histogram)
    assert (quick.min_val, quick.max_val) == (expected.min_val, expected.max_val)


def test_another_number_of_bins() -> None:
    quick, expected = QuickHistogramObserver(bins=100), HistogramObserver(bins=100)
    assert bits(seen(quick, "outliers", 0).calculate_qparams()) == bits(
        seen(expected, "outliers", 0).calculate_qparams()
    )


def test_errors_are_those_of_torch() -> None:
    observer = seen(HistogramObserver(), "outliers", 0)
    width = (observer.max_val.item() - observer.min_val.item()) / observer.bins
    ranges = [step for step, _ in zip(steps_of(observer.histogram), range(40), strict=False)]
    assert len(ranges) > 20
    errors = quantization_errors(observer.histogram, width, ranges, observer.dst_nbins)
    assert errors == [observer._compute_quantization_error(*each) for each in ranges]


def test_steps_narrow_the_range() -> None:
    steps = list(steps_of(seen(HistogramObserver(), "long tail", 0).histogram))
    widths = [end - start for start, end in steps]
    assert widths == sorted(widths, reverse=True)
    assert len(set(steps)) == len(steps)


def bits(values: tuple[Tensor, ...]) -> list[object]:
    return [(value.dtype, value.tolist()) for value in values]
