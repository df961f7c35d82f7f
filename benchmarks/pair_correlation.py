"""Are the pairs of a speed measurement independent, and does their interval cover the truth?

``python -m benchmarks.pair_correlation --runs 200`` times float32 against itself, where the true
ratio is 1, with the same protocol as a release gate. For every run it records the correlation of
neighbouring pairs (lag 1, of the logarithms of the ratios) and whether the 95 % interval contains
1. Run it on a quiet machine and next to other work; raw pairs go to ``--output``, a line per run,
which ``--read`` summarises again. ``--simulate`` prints what each kind of interval would cover if
neighbouring pairs were correlated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.blocks import BUILD, table
from ptqbench.measurement.intervals import lag_one_correlation, ratio_interval

PAIRS = 20
CORRELATIONS = (0.0, 0.2, 0.5, 0.8)
SIZES = (20, 80, 160)

Logs = NDArray[np.float64]
Covers = Callable[[Logs], bool]
"""Whether the 95 % interval of logarithms of ratios contains 0."""


def bootstrap_covers(logs: Logs) -> bool:
    """Percentile bootstrap of the median over independent pairs."""
    generator = np.random.default_rng(0)
    medians = np.median(logs[generator.integers(0, len(logs), (4000, len(logs)))], axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return bool(low <= 0 <= high)


def ranks_cover(logs: Logs) -> bool:
    """Order statistics of the median of independent pairs."""
    test = stats.quantile_test(logs, p=0.5)
    low, high = test.confidence_interval(0.95)
    return bool(low <= 0 <= high)


def effective_ranks_cover(logs: Logs) -> bool:
    """The interval of a release gate."""
    estimate = ratio_interval(np.exp(logs), np.ones(len(logs)))
    return estimate.low <= 1 <= estimate.high


def measure(model: str) -> tuple[list[float], list[float]]:
    """Times of one run in ms: float32 on both sides, a pair for each position."""
    import torch

    from ptqbench.core.cpu_count import physical_cores
    from ptqbench.measurement.speed import measure_speed
    from ptqbench.models.catalog import MODELS
    from ptqbench.weights.load import build_model, load_weights

    spec = MODELS.get(model)
    module = build_model(spec, load_weights(spec, "fixture"))
    example = torch.randn(1, *spec.input_size, generator=torch.Generator().manual_seed(0))
    lowered = torch.jit.optimize_for_inference(torch.jit.trace(module, example))
    speed = measure_speed(
        lowered,
        lowered,
        example,
        threads=physical_cores(),
        threshold=None,
        min_pairs=PAIRS,
        max_pairs=PAIRS,
    )
    return list(speed.samples.first_ms), list(speed.samples.second_ms)


def summary(runs: Sequence[tuple[list[float], list[float]]]) -> str:
    """Correlation and coverage over all runs, in a line."""
    logs = [np.log(first) - np.log(second) for first, second in runs]
    correlations = np.array([lag_one_correlation(each) for each in logs])
    ratios = [float(np.exp(np.median(each))) for each in logs]
    low, high = np.quantile(correlations, (0.1, 0.9))
    coverage = ", ".join(
        f"{name} {sum(map(covers, logs))} ({np.mean([covers(each) for each in logs]):.1%})"
        for name, covers in (
            ("bootstrap", bootstrap_covers),
            ("order statistics", ranks_cover),
            ("of the effective number", effective_ranks_cover),
        )
    )
    return (
        f"{len(runs)} runs of {PAIRS} pairs: lag-1 correlation {correlations.mean():+.3f} on "
        f"average, 10th to 90th percentile {low:+.2f} to {high:+.2f}; 95 % intervals that contain "
        f"1: {coverage}; ratios {min(ratios):.3f} to {max(ratios):.3f}"
    )


def autoregressive(generator: np.random.Generator, correlation: float, n: int) -> Logs:
    """A series of neighbours that resemble each other, with the heavy tails of real times."""
    steps = generator.standard_t(3, size=n + 50)
    series = np.zeros(n + 50)
    for index in range(1, n + 50):
        series[index] = correlation * series[index - 1] + steps[index]
    return series[50:]


def simulation(runs: int) -> str:
    """Coverage of the 95 % interval by correlation and number of pairs, as a table."""
    generator = np.random.default_rng(0)
    rows = []
    for correlation in CORRELATIONS:
        cells = [f"{correlation:g}"]
        for n in SIZES:
            series = [0.05 * autoregressive(generator, correlation, n) for _ in range(runs)]
            for covers in (ranks_cover, effective_ranks_cover):
                cells.append(f"{np.mean([covers(each) for each in series]):.1%}")
        rows.append(tuple(cells))
    kinds = [f"{n} pairs: {kind}" for n in SIZES for kind in ("independent", "effective")]
    return table(("ρ", *kinds), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--read", type=Path, nargs="+", help="summarise earlier --output files")
    parser.add_argument("--simulate", type=int, metavar="RUNS", help="simulate instead")
    parser.add_argument("--output", type=Path, default=BUILD / "pair-correlation.jsonl")
    args = parser.parse_args()
    if args.simulate:
        print(simulation(args.simulate))
    elif args.read:
        lines = [line for path in args.read for line in path.read_text("utf-8").splitlines()]
        print(summary([json.loads(line) for line in lines]))
    else:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        runs = []
        with args.output.open("w", encoding="utf-8") as file:
            for _ in range(args.runs):
                runs.append(measure(args.model))
                print(json.dumps(runs[-1]), file=file, flush=True)
        print(f"{args.model}. {summary(runs)}")


if __name__ == "__main__":
    main()
