"""EfficientNet-Lite0 as an ONNX file with full-range weights, put into docs/runtimes.md.

``python -m benchmarks.onnx_saturation --weights FILE --data DIR``. The weights are those of
``python -m benchmarks.efficientnet_lite``; the pictures a folder with ``train/`` and ``val/``.
ONNX Runtime's own tool quantizes the network with ``reduce_range=False``; `ptqbench gate` then
says what that does on this CPU, and what the same file does if it is executed exactly.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.blocks import BUILD, ROOT, rewrite
from benchmarks.gate_output import without_table
from benchmarks.peer_runtimes.onnx_runtime import export, quantize
from benchmarks.peers import plans_of
from benchmarks.readme_output import COLUMNS, block
from ptqbench.core.phases import Phases
from ptqbench.core.progress import silent
from ptqbench.evaluation.open_subject import open_subject

MODEL = "benchmarks/efficientnet_lite.py:lite0"
FILE = "lite0.int8.onnx"
SHOWN = ("gate", "--model", MODEL, "--artifact", FILE, "--weights", "FILE", "--data", "DIR")


def make(options: list[str], path: Path) -> None:
    """Quantize as ONNX Runtime's documentation does, without spare bit.

    Args:
        options: Of ``ptqbench run``: weights and pictures.
        path: The int8 file.
    """
    (plan,) = plans_of([MODEL, *options])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subject = open_subject(plan.recipe, plan.settings, stack, silent, Phases())
        images = [image for batch in subject.calibration_batches() for image in batch.split(1)]
        export(subject.model, images[0], folder / "float.onnx", any_size=False)
        quantize(folder / "float.onnx", images, folder / FILE, reduce_range=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / FILE, path)


def _judgement(printed: str) -> str:
    """What is said of agreement and saturation, and where; times are those of other documents."""
    sentences, *notes = re.split(r"\n\s*\n", without_table(printed))
    gates = re.split(r"\n(?=\S)", sentences)
    chosen = [gate for gate in gates if re.match(r"\S+ \w+ (agreement|saturation) of", gate)]
    machine = notes[-1].partition(" · latency")[0]
    return "\n".join(chosen) + f"\n\n{machine}"


def main(options: list[str]) -> int:
    """Make the file if it is not in ``build/``, run the gate, and rewrite the block."""
    path = BUILD / FILE
    if not path.exists():
        make(options, path)
    arguments = ["gate", "--model", MODEL, "--artifact", str(path), *options]
    result = subprocess.run(
        [sys.executable, "-m", "ptqbench", *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        check=False,
    )
    if result.returncode not in (0, 1):  # a failed gate is a result, anything else is none
        return result.returncode
    shown = block(SHOWN, _judgement(result.stdout), result.returncode)
    rewrite(ROOT / "docs/runtimes.md", "saturation", shown)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
