"""Values are counted as ``torch.histc`` counts them, and beyond where it stops counting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ptqbench.quantization.bin_counts import bin_counts

BINS = 2048


def values_of(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


KINDS = {
    "both signs": values_of(0, 4, 16, 32, 33),
    "after a ReLU": values_of(1, 4, 16, 32, 33).relu(),
    "after a ReLU6": (5 * values_of(2, 4, 16, 32, 33)).clamp(0, 6),
    "far from zero": 1000 + values_of(3, 50_000),
    "tiny": 1e-20 * values_of(4, 50_000),
    "smaller than any range": 1e-38 * values_of(5, 50_000),
    "huge": 1e36 * values_of(6, 50_000),
    "ends of bins": torch.arange(-512, 513).repeat(40) / 256,
    "channels last": values_of(7, 4, 16, 32, 33).to(memory_format=torch.channels_last),
    "with gaps": values_of(8, 4, 16, 32, 33)[:, ::2, :, 3:],
    "one": torch.full((3,), 2.5),
    "for several threads": values_of(9, 1_000_003),
}


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_torch(kind: str) -> None:
    values = KINDS[kind]
    low, high = (end.item() for end in torch.aminmax(values))
    expected = torch.histc(values, BINS, min=low, max=high)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(bin_counts(values, BINS, low, high), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bins", [1, 100, 256, 2**13, 2**14])
def test_a_wider_range_and_other_numbers_of_bins(bins: int) -> None:
    values = KINDS["both signs"]
    expected = torch.histc(values, bins, min=-7.3, max=9.1)
    low, high = torch.tensor([-7.3, 9.1]).tolist()
    assert torch.equal(bin_counts(values, bins, low, high), expected)


def test_counts_above_what_float32_can_count_one_by_one() -> None:
    zeros = 2**24 + 2_000
    values = torch.cat([torch.zeros(zeros), torch.ones(3)])
    counts = bin_counts(values, BINS, 0.0, 1.0)
    assert counts[0] == zeros
    assert counts[-1] == 3
