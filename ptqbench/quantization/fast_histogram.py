"""torch's histogram observer, several times faster, with identical results.

**Counting.** See `bin_counts`. Where a batch widens the range, torch looks every sixteenth of an
old bin up among the new ones; these are in order, so that it is enough to look up the new bins'
ends among them.

**Counting once.** Where an operator only moves data, torch has one observer look at its input and
at its output. As long as both are the same memory, they have the same counts.

**Search.** torch narrows a range step by step and computes the quantization error after each: it
reads the cumulative histogram one 0-dimensional tensor at a time and needs two dozen small
operators for an error. The sequence of steps does not depend on the errors, only its end does. So
the steps are computed with plain numbers and the errors of many steps together, by the same
operators in the same order: the ranges are bit-identical.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.ao.quantization import HistogramObserver

from ptqbench.quantization.bin_counts import bin_counts, is_dense

_STEP = 1e-5
"""Share of the values that a step excludes on one side."""
_FIRST, _MOST = 8, 64
"""Number of steps whose errors are computed together, initially and at most."""
_DIGITS = 16 * torch.finfo(torch.float32).eps
"""Share of the largest value that numbers in order must differ by to stay so when rounded."""


@dataclass(frozen=True)
class _Observation:
    """Counts of the values that fill a piece of memory, which is kept from being used again."""

    observer: HistogramObserver
    memory: torch.UntypedStorage
    ends: tuple[float, float]
    limits: tuple[float, float]
    counts: Tensor


class QuickHistogramObserver(HistogramObserver):
    """``HistogramObserver`` that determines the same ranges faster."""

    latest: ClassVar[_Observation | None] = None
    """The latest of all observers; operators that only move data follow one another."""

    def forward(self, x_orig: Tensor) -> Tensor:
        """Count the values of ``x_orig`` (any shape, float32) and return it."""
        if x_orig.numel() == 0:
            return x_orig
        values = x_orig.detach()
        low, high = (end.item() for end in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            unchanged: Tensor = super().forward(x_orig)
            return unchanged
        before = self.min_val.item(), self.max_val.item()
        ends = low, high
        low, high = min(low, before[0]), max(high, before[1])
        counts = self._counts(values, ends, (low, high))
        if math.isfinite(before[0]) and math.isfinite(before[1]):
            if before == (low, high):
                counts = counts + self.histogram
            else:
                limits = torch.tensor(low), torch.tensor(high)
                counts = self._combine_histograms(
                    self.histogram, self.min_val, self.max_val, counts, *limits
                )
        self.histogram.detach_().resize_(counts.shape).copy_(counts)
        self.min_val.fill_(low)
        self.max_val.fill_(high)
        return x_orig

    def _counts(
        self, values: Tensor, ends: tuple[float, float], limits: tuple[float, float]
    ) -> Tensor:
        """Count values between limits; ``ends`` are the smallest and the largest of them."""
        memory = values.untyped_storage()
        whole = memory.nbytes() == values.nbytes and is_dense(values)
        latest = QuickHistogramObserver.latest
        if (
            whole
            and latest is not None
            and latest.observer is self
            and latest.memory.data_ptr() == memory.data_ptr()
            and latest.memory.nbytes() == memory.nbytes()
            # An operator in place that changes values, a clamp, changes one of these.
            and (latest.ends, latest.limits) == (ends, limits)
        ):
            return latest.counts
        counts = bin_counts(values, self.bins, *limits)
        QuickHistogramObserver.latest = (
            _Observation(self, memory, ends, limits, counts) if whole else None
        )
        return counts

    def _upscale_histogram(
        self,
        histogram: Tensor,
        orig_min: Tensor,
        orig_max: Tensor,
        update_min: Tensor,
        update_max: Tensor,
    ) -> Tensor:
        """Distribute the counts of a range among the bins of a wider one, as torch does."""
        rate, bins = self.upsample_rate, self.bins
        part = (orig_max - orig_min) / (bins * rate)
        if part < _DIGITS * torch.maximum(orig_min.abs(), orig_max.abs()):
            # Far from zero, rounding could change the order.
            wider: Tensor = super()._upscale_histogram(
                histogram, orig_min, orig_max, update_min, update_max
            )
            return wider
        middles = torch.linspace(orig_min, orig_max, bins * rate + 1)[:-1] + 0.5 * part
        ends = torch.linspace(update_min, update_max, bins + 1)
        cuts = torch.searchsorted(middles, ends)
        cuts[0], cuts[-1] = 0, len(middles)
        bin_of_middle = torch.repeat_interleave(torch.arange(bins), cuts.diff())
        weights = histogram.repeat_interleave(rate) / rate
        return torch.bincount(bin_of_middle, weights=weights, minlength=bins)

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        """Search for the range with the least squared error, as torch does."""
        width = (self.max_val.item() - self.min_val.item()) / self.bins
        if not width / self.dst_nbins > 0.0 or len(self.histogram) != self.bins:
            default: tuple[Tensor, Tensor] = super()._non_linear_param_search()
            return default
        start, end = self._best(width)
        step = (self.max_val - self.min_val) / self.bins
        return self.min_val + step * start, self.min_val + step * (end + 1)

    def _best(self, width: float) -> tuple[int, int]:
        """First and last bin of the best range."""
        best, least = (0, self.bins - 1), float("inf")
        steps = steps_of(self.histogram)
        size = _FIRST
        while block := list(itertools.islice(steps, size)):
            errors = quantization_errors(self.histogram, width, block, self.dst_nbins)
            for bins, error in zip(block, errors, strict=True):
                if error > least:
                    return best
                best, least = bins, error
            size = min(2 * size, _MOST)
        return best


def steps_of(histogram: Tensor) -> Iterator[tuple[int, int]]:
    """Yield ever narrower ranges, each shortened on the side where that removes more bins.

    Args:
        histogram: Counts of the bins, float32.

    Yields:
        First and last bin.
    """
    total = torch.sum(histogram).item()
    below: list[float] = torch.cumsum(histogram, dim=0).tolist()
    # float32, as torch compares a tensor with a number.
    low, high = 0.0, 1.0
    start, end = 0, len(below) - 1
    while low < high:
        next_low, next_high = low + _STEP, high - _STEP
        least, most = np.float32(next_low * total), np.float32(next_high * total)
        left, right = start, end
        while left < end and below[left] < least:
            left += 1
        while right > start and below[right] > most:
            right -= 1
        before = start, end
        if left - start > end - right:
            start, low = left, next_low
        else:
            end, high = right, next_high
        if (start, end) != before:
            yield start, end


def quantization_errors(
    histogram: Tensor, width: float, ranges: Sequence[tuple[int, int]], levels: int
) -> list[float]:
    """Compute the squared errors of quantizing to ranges with ``HistogramObserver``'s formula.

    Args:
        histogram: Counts of the bins, float32.
        width: Width of a bin.
        ranges: First and last bin of each range.
        levels: Number of quantized values.
    """
    bins = torch.arange(len(histogram))
    first = torch.tensor([start for start, _ in ranges])[:, None]
    steps = [width * (end - start + 1) / levels for start, end in ranges]
    step = torch.tensor(steps)[:, None]
    half = torch.tensor([each / 2 for each in steps])[:, None]
    density = histogram / width
    begin = (bins - first) * width
    end = begin + width
    level_of_begin = torch.div(begin, step, rounding_mode="floor").clamp_(0, levels - 1)
    level_of_end = torch.div(end, step, rounding_mode="floor").clamp_(0, levels - 1)
    errors = _between(begin - (level_of_begin + 0.5) * step, half, density)
    errors += (level_of_end - level_of_begin - 1) * _between(-half, half, density)
    errors += _between(-half, end - (level_of_end * step + half), density)
    # One by one, because sums of a whole block could be rounded differently.
    return [error.sum().item() for error in errors]


def _between(begin: Tensor, end: Tensor, density: Tensor) -> Tensor:
    """Integral of the squared distance between two distances from a level, times the density."""
    return density * ((end * end * end - begin * begin * begin) / 3)
