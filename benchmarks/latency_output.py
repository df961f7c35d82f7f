"""Save the latency of resnet18, compare a second run, and put the output into docs/pytest.md.

``python -m benchmarks.latency_output``. The runs are real; whatever they say is shown.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from benchmarks.blocks import ROOT, rewrite

SAVE = ("--benchmark-autosave",)
COMPARE = ("--benchmark-compare", "--benchmark-compare-fail=median:10%")
COLUMNS = 100
SHOWN = "--benchmark-columns=min,median,iqr,rounds"
COMMAND = ("pytest", "benchmarks/test_latency.py", "--ptqbench-models=resnet18")


def block(runs: Sequence[tuple[Sequence[str], str, int]]) -> str:
    """The commands with what they print; the head, which is pytest's, is left out."""
    lines: list[str] = []
    for options, printed, exit_code in runs:
        lines.append(f"$ {' '.join((*COMMAND, *options))}")
        lines += [line.rstrip() for line in printed.splitlines() if line.strip()]
        lines += ["$ echo $?", str(exit_code), ""]
    text = "\n".join(lines).strip()
    return f"```text\n{text}\n```"


def run(options: Sequence[str], storage: str) -> tuple[str, int]:
    """What pytest prints, without the head, and its exit code."""
    hidden = (
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        SHOWN,
        f"--benchmark-storage={storage}",
    )
    result = subprocess.run(
        [sys.executable, "-m", *COMMAND, *options, *hidden],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        check=False,
    )
    return result.stdout.replace(storage, ".benchmarks"), result.returncode


def main() -> int:
    runs = []
    with tempfile.TemporaryDirectory() as storage:
        for options in (SAVE, COMPARE):
            printed, exit_code = run(options, storage)
            if exit_code not in (0, 1):  # slower than before is a result, anything else is none
                print(printed, file=sys.stderr)
                return exit_code
            runs.append((options, printed, exit_code))
    rewrite(ROOT / "docs" / "pytest.md", "latency", block(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
