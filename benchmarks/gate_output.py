"""Gate an int8 file made without ptqbench, and put what is printed into docs/gate-foreign.md.

``python -m benchmarks.gate_output``. The file is a MobileNetV2 that torch's graph mode quantized
with its default settings for onednn. The run is real; whatever its verdicts are is shown, from
the first sentence on: the table is that of ``ptqbench run``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from benchmarks.blocks import ROOT, rewrite
from benchmarks.readme_output import COLUMNS, block
from ptqbench.data.fixture.images import open_fixture
from ptqbench.models.catalog import MODELS
from ptqbench.weights.load import build_model, load_weights

MODEL, ENGINE, IMAGES = "mobilenet_v2", "onednn", 256
ARGUMENTS = ("gate", "--model", MODEL, "--artifact", "int8.pt")


def make(path: Path) -> None:
    """Quantize as torch's documentation does, and save as TorchScript."""
    weights = load_weights(MODELS.get(MODEL))
    images = open_fixture(weights.preprocessing).calibration
    torch.backends.quantized.engine = ENGINE
    example = torch.zeros(1, 3, 64, 64)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations, and scales that a trace does not vary
        prepared = prepare_fx(
            build_model(MODELS.get(MODEL), weights), get_default_qconfig_mapping(ENGINE), (example,)
        )
        for pixels, _ in images.batches(0, min(IMAGES, images.count), 50):
            prepared(pixels)
        script = torch.jit.freeze(torch.jit.trace(convert_fx(prepared), example).eval())
        torch.jit.save(script, str(path))


def without_table(printed: str) -> str:
    """What follows the table: sentences on the gates and notes, with where it was measured."""
    return re.split(r"\n\s*\n", printed.strip(), maxsplit=2)[-1]


def main() -> int:
    """Make the file, run the gate, and rewrite the block."""
    with tempfile.TemporaryDirectory() as name:
        make(Path(name) / "int8.pt")
        result = subprocess.run(
            [sys.executable, "-m", "ptqbench", *ARGUMENTS],
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
    if result.returncode not in (0, 1):  # a failed gate is a result, anything else is none
        return result.returncode
    shown = block(ARGUMENTS, without_table(result.stdout), result.returncode)
    rewrite(ROOT / "docs/gate-foreign.md", "gate", shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
