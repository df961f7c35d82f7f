"""Which batch size calibration and accuracy run fastest with: ``python -m benchmarks.batch_size``.

Times float32, int8 and calibration per image for several batch sizes, in turn, and rewrites
the block in docs/performance.md. `ptqbench.evaluation.subject.BATCH_SIZE` is chosen from it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import geometric_mean, median

import torch

from benchmarks.blocks import ROOT, rewrite, table
from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import cpu_name, instruction_set
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.phases import Phases
from ptqbench.data.fixture.images import open_fixture
from ptqbench.data.image_set import Data, example_image
from ptqbench.evaluation.subject import BATCH_SIZE
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES
from ptqbench.weights.load import build_model, load_weights

SIZES = (1, 10, 25, 50, 100, 200)
IMAGES = 200
ROUNDS = 3
COMMAND = "python -m benchmarks.batch_size"


def per_image_ms(model: Model, data: Data, size: int) -> float:
    """Time of the forward passes over the first images, in ms an image."""
    batches = [pixels for pixels, _ in data.evaluation.batches(0, IMAGES, size)]
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            model(batch)
    return (time.perf_counter() - started) * 1e3 / IMAGES


def measure(name: str, folder: Path) -> list[tuple[str, ...]]:
    """A row for each batch size: float32, int8 and calibration in ms an image."""
    spec, recipe = MODELS.get(name), RECIPES.get(name)
    weights = load_weights(spec)
    model = build_model(spec, weights)
    data = open_fixture(weights.preprocessing)
    backend = BACKENDS.get(recipe.backend)
    example = example_image(data.calibration)
    float32 = backend.build_float(model, name, example, folder / "float32.pt")
    times: dict[int, dict[str, list[float]]] = {
        size: {"float32": [], "int8": [], "calibration": []} for size in SIZES
    }
    sides: dict[int, dict[str, Model]] = {}
    for size in SIZES:
        phases = Phases()
        batches = (pixels for pixels, _ in data.calibration.batches(0, IMAGES, size))
        int8 = backend.build(model, recipe, batches, folder / "int8.pt", phases)
        spent = {phase.name: phase.seconds for phase in phases.records()}
        times[size]["calibration"].append(spent["calibration"] * 1e3 / IMAGES)
        # Loaded for each size: oneDNN keeps the primitives of the first shape that it sees.
        optimized = backend.float_lowerings(float32)["optimized"]
        sides[size] = {"float32": optimized, "int8": int8.load()}
    for _ in range(ROUNDS + 1):  # the first round warms up
        for size in SIZES:
            for side, call in sides[size].items():
                times[size][side].append(per_image_ms(call, data, size))
    rows = []
    for size, series in times.items():
        ms = [median(each[1:] or each) for each in series.values()]
        shown = f"**{size}**" if size == BATCH_SIZE else str(size)
        rows.append((name, shown, *(f"{value:.2f}" for value in (*ms, geometric_mean(ms[:2])))))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("models", nargs="*", default=["resnet18", "mobilenet_v2"], metavar="MODEL")
    arguments = parser.parse_args()
    torch.set_num_threads(physical_cores())
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            rows += measure(name, Path(folder))
    heading = ("Model", "Batch size", "float32", "int8", "calibration", "mean of float32 and int8")
    lines = [
        table(heading, rows, right=range(1, 6)),
        "",
        f"In ms an image at the size of the fixture images, on {cpu_name()} "
        f"({instruction_set()}, {physical_cores()} threads), torch {torch.__version__}; in bold "
        f"the batch size in use. Made by `{COMMAND}`.",
    ]
    rewrite(ROOT / "docs" / "performance.md", "batch", "\n".join(lines))


if __name__ == "__main__":
    main()
