"""The gain from decoding during inference: ``python -m benchmarks.decoding``.

Writes a folder of JPEGs as large as ImageNet's, streams it through a network with no worker beside
it (each batch is decoded by one thread, then computed), with one and with two, in turn, and
rewrites the block in docs/data.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.blocks import ROOT, rewrite, table
from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import cpu_name, instruction_set
from ptqbench.core.cpu_count import physical_cores
from ptqbench.data.decode import load_image
from ptqbench.data.file_source import FileSource
from ptqbench.data.fixture.images import open_fixture
from ptqbench.data.folder_layout import LabelledFile
from ptqbench.data.picture_set import Pictures
from ptqbench.data.prefetch import batches_ahead
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.evaluation.subject import BATCH_SIZE
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES
from ptqbench.settings.run_settings import RunSettings
from ptqbench.weights.load import build_model, load_weights

MODEL, BACKEND = "mobilenet_v2", "x86"
SIZE = (500, 375)
IMAGES = 200
ROUNDS = 4
WORKERS = (0, 1, 2)
COMMAND = "python -m benchmarks.decoding"


def write_pictures(folder: Path, count: int) -> list[LabelledFile]:
    """JPEGs of coarse structure with a little noise, which compress about as photographs do."""
    random = np.random.default_rng(0)
    files = []
    for index in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = picture + random.normal(0, 12, picture.shape)
        path = folder / f"{index:04}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        files.append(LabelledFile(path, 0))
    return files


def int8_model(folder: Path) -> Model:
    """The shipped int8 network, during whose inference images are decoded."""
    weights = load_weights(MODELS.get(MODEL))
    data = open_fixture(weights.preprocessing)
    batches = (pixels for pixels, _ in data.calibration.batches(0, 64, BATCH_SIZE))
    artifact = BACKENDS.get(BACKEND).build(
        build_model(MODELS.get(MODEL), weights), RECIPES.get(MODEL), batches, folder / "int8.pt"
    )
    return artifact.load()


def batches(files: list[LabelledFile], workers: int) -> Iterator[Tensor]:
    """Batches as a run gets them; without workers, each is decoded when it is needed.

    That is done by one thread too, but for nothing ahead: all that differs is whether decoding
    and inference overlap.
    """
    preprocessing = Preprocessing()
    if workers:
        reading = RunSettings(workers=workers)
        source = FileSource(files[0].path.parent, files)
        images = Pictures("pictures", source, ("any",), preprocessing, reading=reading)
        yield from (pixels for pixels, _ in images.batches(0, len(files), BATCH_SIZE))
        return

    def decoded(file: LabelledFile) -> Tensor:
        return preprocessing.pixels(load_image(file.path))

    for pixels in batches_ahead(files, decoded, BATCH_SIZE, workers=1, ahead=0):
        yield preprocessing.normalise(torch.stack(pixels))


def images_per_second(files: list[LabelledFile], model: Model, workers: int) -> float:
    """Images that go through the network in a second, decoding included."""
    started = time.perf_counter()
    with torch.inference_mode():
        for pixels in batches(files, workers):
            model(pixels)
    return len(files) / (time.perf_counter() - started)


def block(speeds: dict[int, float], kilobytes: float, images: int) -> str:
    """The table, and what it was measured on."""
    rows = [
        (str(workers), f"{speed:.0f}", f"{speed / speeds[0]:.2f}×")
        for workers, speed in speeds.items()
    ]
    columns = ("Workers", "Images/s", "against none")
    width, height = SIZE
    return (
        f"{table(columns, rows, right=range(3))}\n\n"
        f"{images} JPEGs of {width}×{height} pixels ({kilobytes:.0f} kB each) through "
        f"Resize(256), CenterCrop(224) and the int8 {MODEL} on {BACKEND}, batches of {BATCH_SIZE}, "
        f"{torch.get_num_threads()} threads; the median of {ROUNDS} rounds. Measured on "
        f"{cpu_name()} ({instruction_set()}, {physical_cores()} physical cores). "
        f"Made by `{COMMAND}`."
    )


def main() -> None:
    """Measure and rewrite the block."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help=f"default: {IMAGES}")
    count = parser.parse_args().images
    torch.set_num_threads(physical_cores())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_pictures(folder, count)
        kilobytes = sum(file.path.stat().st_size for file in files) / 1e3 / count
        model = int8_model(folder)
        rounds: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        images_per_second(files[:BATCH_SIZE], model, 1)  # warms up
        for turn in range(ROUNDS):
            # In alternating order: whatever slows the machine down for a while meets all.
            for workers in WORKERS[:: -1 if turn % 2 else 1]:
                rounds[workers].append(images_per_second(files, model, workers))
                print(f"{workers} workers: {rounds[workers][-1]:.0f} images/s", file=sys.stderr)
    speeds = {workers: median(values) for workers, values in rounds.items()}
    rewrite(ROOT / "docs/data.md", "decoding", block(speeds, kilobytes, count))


if __name__ == "__main__":
    main()
