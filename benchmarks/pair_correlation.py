"""Are the pairs of a speed measurement independent, and does their interval cover the truth?

``python -m benchmarks.pair_correlation --runs 200`` times float32 against itself, where the true
ratio is 1, with the same protocol as a release gate. For every run it records the correlation of
neighbouring pairs (lag 1, of the logarithms of the ratios) and whether the 95 % interval contains
1. Run it on a quiet machine and next to other work; raw pairs go to ``--output``, a line per run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from ptqbench.backends.cpu import instruction_set
from ptqbench.core.cpu_count import physical_cores
from ptqbench.measurement.intervals import lag_one_correlation, ratio_interval
from ptqbench.measurement.speed import measure_speed
from ptqbench.models.catalog import MODELS
from ptqbench.weights.load import build_model, load_weights

PAIRS = 20


def measure(model: str) -> tuple[list[float], list[float]]:
    """Times of one run in ms: float32 on both sides, a pair for each position."""
    spec = MODELS.get(model)
    module = build_model(spec, load_weights(spec, "fixture"))
    example = torch.randn(1, *spec.input_size, generator=torch.Generator().manual_seed(0))
    lowered = torch.jit.optimize_for_inference(torch.jit.trace(module, example))
    speed = measure_speed(
        lowered, lowered, example, threads=physical_cores(), threshold=None, min_pairs=PAIRS
    )
    return list(speed.samples.first_ms), list(speed.samples.second_ms)


def summary(runs: list[tuple[list[float], list[float]]]) -> str:
    """Correlation and coverage over all runs, in a line."""
    correlations = np.array([lag_one_correlation(np.log(a) - np.log(b)) for a, b in runs])
    intervals = [ratio_interval(*run) for run in runs]
    covered = sum(each.low <= 1 <= each.high for each in intervals)
    ratios = [each.value for each in intervals]
    return (
        f"{len(runs)} runs of {PAIRS} pairs: lag-1 correlation {correlations.mean():+.3f} on "
        f"average, 10th to 90th percentile {np.quantile(correlations, 0.1):+.2f} to "
        f"{np.quantile(correlations, 0.9):+.2f}; {covered} of {len(runs)} intervals at 95 % "
        f"contain 1 ({covered / len(runs):.1%}); ratios {min(ratios):.3f} to {max(ratios):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--read", type=Path, help="summarise an earlier --output instead")
    parser.add_argument("--output", type=Path, default=Path("build/pair-correlation.jsonl"))
    args = parser.parse_args()
    if args.read is not None:
        print(summary([json.loads(line) for line in args.read.read_text("utf-8").splitlines()]))
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    runs = []
    with args.output.open("w", encoding="utf-8") as file:
        for _ in range(args.runs):
            runs.append(measure(args.model))
            print(json.dumps(runs[-1]), file=file, flush=True)
    print(f"{args.model}, {instruction_set()}, {physical_cores()} threads. {summary(runs)}")


if __name__ == "__main__":
    main()
