"""Judge examples/own_model.py in an empty folder and put what is printed into docs/own-models.md.

``python -m benchmarks.own_model_output``. Pictures are scenes of seven of the fixture's classes;
the model is trained on them for some minutes, once: the folder is kept in ``build/own_model``. The
run is real; whatever its verdicts are is shown.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from benchmarks.blocks import BUILD, ROOT, rewrite
from ptqbench.data.fixture.scenes import render
from ptqbench.data.fixture.shapes import CLASSES

COLUMNS = 100
RUN = "Output, with rendered pictures and the settings above:"
RECIPE = "The recipe of that model, as printed:"
USED = CLASSES[:7]
PICTURES = {"train": (0, 1050), "val": (2, 1400)}
"""Stream of the renderer and number of pictures of each split."""
SETTINGS = """\
plugins = ["my_package.quant"]
model.my_net = { weights = "my.safetensors", data = "photos" }
"""


def write_pictures(folder: Path) -> None:
    for split, (stream, count) in PICTURES.items():
        for index in range(count):
            label = index % len(USED)
            target = folder / split / USED[label] / f"{index:04}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(render(0, stream, index, label)).save(target)


def prepare(folder: Path) -> None:
    package = folder / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(ROOT / "examples" / "own_model.py", package / "quant.py")
    (folder / "ptqbench.toml").write_text(SETTINGS, "utf-8")
    write_pictures(folder / "photos")
    train = [sys.executable, str(package / "quant.py"), "photos/train", "my.safetensors"]
    subprocess.run(train, cwd=folder, env=environment(), check=True)


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8", "PYTHONPATH": path}


def printed(folder: Path, introduction: str, *argv: str) -> str:
    command = [sys.executable, "-m", "ptqbench", *argv]
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if result.returncode not in (0, 1):  # a failed gate is a result, anything else is none
        sys.exit(result.returncode)
    return f"{introduction}\n\n```text\n$ ptqbench {' '.join(argv)}\n{result.stdout.strip()}\n```"


def main() -> int:
    document = ROOT / "docs" / "own-models.md"
    folder = BUILD / "own_model"
    if not (folder / "my.safetensors.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        prepare(folder)
    if "--prepare" not in sys.argv:
        rewrite(document, "run", printed(folder, RUN, "run", "my_net"))
        rewrite(document, "recipe", printed(folder, RECIPE, "recipe", "my_net"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
