"""Latency of every case in both precisions, tracked over time with pytest-benchmark.

pytest benchmarks --benchmark-autosave
pytest benchmarks --benchmark-compare --benchmark-compare-fail=median:10%
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ptqbench.testing.benchmark_tracking import BENCHMARK


@pytest.mark.benchmark(**BENCHMARK)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_latency(
    benchmark: Any, ptqbench_latency: Callable[[Any, str], None], precision: str
) -> None:
    ptqbench_latency(benchmark, precision)
