"""Judge a network of timm in an empty folder and put what is printed into docs/own-models.md.

``python -m benchmarks.timm_output``, with timm installed. The weights are ``probe``, so that it
needs no network and no pictures; whatever the verdicts are is shown.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.blocks import ROOT, rewrite
from benchmarks.own_model_output import printed

MODEL = "timm:lcnet_050"
INTRODUCTION = "Without `--weights` and `--data`, so under `probe` weights on the fixture images:"


def main() -> int:
    """Run the command and rewrite the block."""
    with tempfile.TemporaryDirectory() as folder:
        text = printed(
            Path(folder), INTRODUCTION, "run", MODEL, "--backend", "onednn", "--limit", "300"
        )
    rewrite(ROOT / "docs" / "own-models.md", "timm", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
