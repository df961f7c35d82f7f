"""Run ``ptqbench run resnet18`` and put what it prints into README.md.

``python -m benchmarks.readme_output``. The run is real; whatever its verdicts are is shown.
"""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.blocks import ROOT, rewrite

ARGUMENTS = ("run", "resnet18")
COLUMNS = 100


def block(arguments: tuple[str, ...], printed: str, exit_code: int) -> str:
    shown = f"$ ptqbench {' '.join(arguments)}\n{printed.strip()}\n$ echo $?\n{exit_code}"
    return f"```text\n{shown}\n```"


def main() -> int:
    result = subprocess.run(
        [sys.executable, "-m", "ptqbench", *ARGUMENTS],
        stdout=subprocess.PIPE,
        env={**os.environ, "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        check=False,
    )
    if result.returncode not in (0, 1):  # a failed gate is a result, anything else is none
        return result.returncode
    rewrite(ROOT / "README.md", "output", block(ARGUMENTS, result.stdout, result.returncode))
    return 0


if __name__ == "__main__":
    sys.exit(main())
