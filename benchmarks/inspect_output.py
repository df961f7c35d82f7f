"""Inspect a file that ONNX Runtime's tool made by its defaults, and put it into docs/runtimes.md.

``python -m benchmarks.inspect_output``. The network is the shipped MobileNetV2.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.blocks import ROOT, rewrite
from benchmarks.peer_runtimes.onnx_runtime import INPUT, export
from benchmarks.readme_output import COLUMNS, block
from ptqbench.data.fixture.images import open_fixture
from ptqbench.models.catalog import MODELS
from ptqbench.weights.load import build_model, load_weights

MODEL, FILE, IMAGES = "mobilenet_v2", "int8.onnx", 32


def make(folder: Path) -> None:
    """Export the network and quantize it by the defaults of ``quantize_static``."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    weights = load_weights(MODELS.get(MODEL))
    pixels, _ = next(open_fixture(weights.preprocessing).calibration.batches(0, IMAGES, IMAGES))
    images = iter(pixels.split(1))

    class Reader(CalibrationDataReader):
        """Feeds the images one by one."""

        def get_next(self) -> dict[str, object] | None:
            image = next(images, None)
            return None if image is None else {INPUT: image.numpy()}

    model = build_model(MODELS.get(MODEL), weights)
    export(model, pixels[:1], folder / "float.onnx", any_size=False)
    quantize_static(folder / "float.onnx", folder / FILE, Reader())


def main() -> int:
    """Make the file, inspect it, and rewrite the block."""
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        result = subprocess.run(
            [sys.executable, "-m", "ptqbench", "inspect", FILE],
            cwd=name,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "COLUMNS": str(COLUMNS),
                "PYTHONIOENCODING": "utf-8",
                "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.getenv("PYTHONPATH")))),
            },
            encoding="utf-8",
            check=False,
        )
    if result.returncode not in (0, 1):  # a finding is a result, anything else is none
        return result.returncode
    shown = block(("inspect", FILE), result.stdout, result.returncode)
    rewrite(ROOT / "docs/runtimes.md", "inspect", shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
