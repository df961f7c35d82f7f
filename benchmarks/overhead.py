"""How much of a run is not forward passes, what memory it takes, how fast the CLI starts.

``python -m benchmarks.overhead`` runs ``ptqbench run resnet18 --timings --json`` twice in
fresh processes; of the second, whose cache is warm, the wall time of the whole process seen
from outside is held against the forward passes that it reports. Exits with 1 above 1.3 times,
if memory grows with the number of images, or if the CLI takes longer than 0.2 s to start.
Rewrites the block in docs/performance.md; needs an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.blocks import BUILD, ROOT, rewrite, table

MODEL = "resnet18"
MOST_OVERHEAD = 1.3
MOST_GROWTH = 1.05
MOST_START = 0.2
IMAGES = (2_000, 10_000)
STARTS = {
    "`import ptqbench`": ("-c", "import ptqbench"),
    "`ptqbench --help`": ("-m", "ptqbench", "--help"),
}
FLOOR = "benchmarks.floor"
"""Quantizes with torch's own functions, and does nothing else."""
COMMAND = "python -m benchmarks.overhead"


@dataclass(frozen=True)
class Process:
    """A process that ended: exit code, wall time in s, peak resident memory in MB."""

    code: int
    seconds: float
    peak_mb: float


def run(arguments: Sequence[str], *, quiet: bool = False) -> Process:
    """Run Python and look at it from outside.

    What this process held when it started the other counts as the other's peak on Linux, so
    this module imports no torch.
    """
    started = time.perf_counter()
    stdout = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen([sys.executable, *arguments], stdout=stdout, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return Process(process.returncode, seconds, usage.ru_maxrss / unit)


def forward_seconds(report: Mapping[str, Any]) -> float:
    """Time of the forward passes that a result reports, in s."""
    return float(sum(phase["seconds"] for phase in report["phases"] if phase["forward"]))


def judge_once(path: Path) -> tuple[Process, Mapping[str, Any]]:
    """One run of the CLI, and its result."""
    process = run(["-m", "ptqbench", "run", MODEL, "--timings", "--json", str(path)])
    if process.code not in (0, 1):  # a failed gate is a result, anything else is none
        sys.exit(f"ptqbench run {MODEL} exited with {process.code}.")
    return process, json.loads(path.read_text("utf-8"))


def evaluate(images: int) -> None:
    """In a process of its own: judge the model on exactly so many images."""
    import ptqbench
    from ptqbench.data.fixture.images import open_fixture
    from ptqbench.models.catalog import MODELS
    from ptqbench.recipes import RECIPES
    from ptqbench.weights.load import load_weights

    preprocessing = load_weights(MODELS.get(MODEL)).preprocessing
    data = open_fixture(preprocessing, evaluation_images=images)
    data.evaluation.limit = images  # type: ignore[misc]  # no top-up: the number is the point
    report = ptqbench.validate(MODEL, RECIPES.get(MODEL).backend, data)
    seen = report.cases[0].facts["evaluation_images"]
    assert seen == images, f"{seen} instead of {images} images"


def start_seconds(arguments: Sequence[str], rounds: int = 7) -> float:
    """The fastest of a few starts in s: what is slower is the machine, not the program."""
    return min(run(arguments, quiet=True).seconds for _ in range(rounds))


def phase_rows(phases: Iterable[Mapping[str, Any]], whole: float) -> list[tuple[str, ...]]:
    """Phases by kind, the rest, and the whole."""
    phases = sorted(phases, key=lambda phase: not phase["forward"])
    rows = [
        (
            p["name"],
            "yes" if p["forward"] else "",
            f"{p['seconds']:.2f}",
            share(p["seconds"], whole),
        )
        for p in phases
    ]
    rest = max(0.0, whole - sum(phase["seconds"] for phase in phases))
    rows.append(("everything else, interpreter start and end included", "", f"{rest:.2f}",
                 share(rest, whole)))  # fmt: skip
    return [*rows, ("**whole process**", "", f"**{whole:.2f}**", "")]


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("--evaluate", type=int, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--skip-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--dry", action="store_true", help="print, and leave docs/ as it is")
    arguments = parser.parse_args()
    if arguments.evaluate:
        evaluate(arguments.evaluate)
        return 0

    folder = BUILD / "overhead"
    folder.mkdir(parents=True, exist_ok=True)
    judge_once(folder / "first.json")
    process, report = judge_once(folder / "second.json")
    forward = forward_seconds(report)
    ratio = process.seconds / forward
    floor = start_seconds(("-m", FLOOR), rounds=3)
    starts = {name: start_seconds(command) for name, command in STARTS.items()}
    memory: dict[int, float] = {}
    if not arguments.skip_memory:
        for images in IMAGES:
            child = run(["-m", "benchmarks.overhead", "--evaluate", str(images)])
            if child.code:
                sys.exit(f"The run over {images} images exited with {child.code}.")
            memory[images] = child.peak_mb
    machine = report["machine"]
    lines = [
        table(("Phase", "forward passes", "s", "share"),
              phase_rows(report["phases"], process.seconds), right=(2, 3)),
        "",
        f"Whole process {process.seconds:.2f} s, forward passes {forward:.2f} s: "
        f"**{ratio:.2f} times** (at most {MOST_OVERHEAD}); the process itself counts "
        f"{report['wall_seconds']:.2f} s. Peak memory of that run {process.peak_mb:.0f} MB.",
        "",
        f"- Everything but the forward passes: {process.seconds - forward:.2f} s. torch's own "
        f"functions, without images, gates and report (`python -m {FLOOR}`): {floor:.2f} s.",
        *(f"- Evaluating {n:,} images: peak memory {mb:.0f} MB." for n, mb in memory.items()),
        *(f"- {name}: {seconds:.3f} s (at most {MOST_START})." for name, seconds in starts.items()),
        "",
        f"Measured on {machine['cpu']} ({machine['instruction_set']}, "
        f"{machine['physical_cores']} physical cores), Python {machine['python']}, "
        f"torch {machine['torch']}, by `{COMMAND}`.",
    ]  # fmt: skip
    print("\n".join(lines))
    if not arguments.dry:
        rewrite(ROOT / "docs" / "performance.md", "overhead", "\n".join(lines))
    grown = bool(memory) and memory[IMAGES[-1]] > MOST_GROWTH * memory[IMAGES[0]]
    return int(ratio > MOST_OVERHEAD or grown or max(starts.values()) > MOST_START)


if __name__ == "__main__":
    sys.exit(main())
