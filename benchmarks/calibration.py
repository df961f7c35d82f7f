"""What calibration costs beside the float32 forward passes: ``python -m benchmarks.calibration``.

Times the module's own forward passes over the calibration images, those of the optimized float32
file, and the calibration, in turn, and rewrites the block in docs/performance.md. `MODEL@SIZE`
enlarges the fixture images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.blocks import ROOT, rewrite, table
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import cpu_name, instruction_set
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.phases import Phases
from ptqbench.data.fixture.images import open_fixture
from ptqbench.evaluation.subject import BATCH_SIZE
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES
from ptqbench.weights.load import build_model, load_weights

COMMAND = "python -m benchmarks.calibration"
MODELS_SHOWN = (
    *("resnet18", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x1_0"),
    "mobilenet_v2@128",
)
IMAGES = 100
ROUNDS = 3
LIMIT = 2.0
"""Largest ratio of calibration to the module's forward passes."""


def forward_seconds(model: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> float:
    """Time of the forward passes over all batches, in s."""
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            model(batch)
    return time.perf_counter() - started


def measure(label: str, folder: Path) -> tuple[str, ...]:
    """A row: ms an image of both float32 sides and of calibration, and the ratios."""
    name, _, size = label.partition("@")
    spec, recipe = MODELS.get(name), RECIPES.get(name)
    weights = load_weights(spec)
    model = build_model(spec, weights)
    images = open_fixture(weights.preprocessing).calibration
    batches = [pixels for pixels, _ in images.batches(0, IMAGES, BATCH_SIZE)]
    if size:
        batches = [interpolate(batch, size=int(size)) for batch in batches]
    backend = BACKENDS.get(recipe.backend)
    artifact = backend.build_float(model, name, batches[0][:1], folder / "float32.pt")
    optimized = backend.float_lowerings(artifact)["optimized"]
    sides: dict[str, list[float]] = {"module": [], "optimized": [], "calibration": []}
    for _ in range(ROUNDS + 1):  # the first round warms up
        sides["module"].append(forward_seconds(model, batches))
        sides["optimized"].append(forward_seconds(optimized, batches))
        phases = Phases()
        backend.build(model, recipe, iter(batches), folder / "int8.pt", phases)
        spent = {phase.name: phase.seconds for phase in phases.records()}
        sides["calibration"].append(spent["calibration"])
    module, fast, calibration = (median(series[1:]) for series in sides.values())
    shown = [f"{seconds * 1e3 / IMAGES:.2f}" for seconds in (module, fast, calibration)]
    row = (name, str(batches[0].shape[-1]), *shown)
    return (*row, f"{calibration / module:.2f}", f"{calibration / fast:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("models", nargs="*", default=list(MODELS_SHOWN), metavar="MODEL[@SIZE]")
    parser.add_argument("--threads", type=int, default=physical_cores())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for label in arguments.models:
            rows.append(measure(label, Path(folder)))
            print(*rows[-1], flush=True)
    heading = (
        *("Model", "Size", "module", "optimized file", "calibration"),
        *("calibration / module", "calibration / optimized"),
    )
    threads = "1 thread" if arguments.threads == 1 else f"{arguments.threads} threads"
    command = COMMAND + (f" --threads {arguments.threads}" if arguments.threads == 1 else "")
    lines = [
        table(heading, rows, right=range(1, 7)),
        "",
        f"In ms an image over {IMAGES} images in batches of {BATCH_SIZE}, on {cpu_name()} "
        f"({instruction_set()}, {threads}), torch {torch.__version__}. Made by `{command}`.",
    ]
    rewrite(ROOT / "docs" / "performance.md", "calibration", "\n".join(lines))
    if any(float(row[5]) > LIMIT for row in rows):
        raise SystemExit(f"Calibration takes more than {LIMIT:g} times the forward passes.")


if __name__ == "__main__":
    main()
