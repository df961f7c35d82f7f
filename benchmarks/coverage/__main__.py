"""Measure every model on every backend, and write down what came of it.

``python -m benchmarks.coverage`` calls ``ptqbench run --resume`` for each case, the cheapest model
first; results are kept in ``build/coverage/``, from where the other options write files.
``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
FBGEMM_ENABLE_INSTRUCTIONS=AVX2 python -m benchmarks.coverage --cpu avx2`` leaves newer instructions
alone; the engine x86 still chooses between FBGEMM and oneDNN by what the CPU can do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Collection

from benchmarks.blocks import BUILD, ROOT, rewrite
from benchmarks.coverage import plan, record
from benchmarks.coverage.document import body
from benchmarks.coverage.thresholds import measured_of
from benchmarks.probe import giga_macs
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.core.atomic import write_text
from ptqbench.evaluation.result import Report
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES, measured
from ptqbench.recipes.toml_format import to_toml

STORED = BUILD / "coverage"
RECORD = ROOT / "fixtures" / "coverage.json"
DOCUMENT = ROOT / "docs" / "coverage.md"
PARTS = {
    "recipes": "write the measured part of the recipes, ptqbench/recipes/measured.json",
    "results": "write the record, fixtures/coverage.json, judged by the recipes as they then are",
    "docs": "write docs/coverage.md from the record",
}


def command(job: plan.Job, cpu: str, time_limit: float) -> list[str]:
    """Return the command that measures a job; its recipe is written to a file."""
    folder = STORED / cpu / (plan.EAGER if job.case == plan.EAGER else "")
    recipe = folder / "recipes" / f"{job.recipe.model}.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    write_text(to_toml(job.recipe), recipe)
    argv = [sys.executable, "-m", "ptqbench", "run", job.recipe.model, "--isolate"]
    argv += ["--recipe", str(recipe), "--weights", job.weights, "--limit", str(job.images)]
    argv += ["--backend", job.backend, "--resume", str(folder), "--time-limit", str(time_limit)]
    # The record is of torch alone, whatever else is installed.
    return [*argv, "--baseline", "runtime"]


def measure(args: argparse.Namespace) -> int:
    """Measure what is missing; return the exit code."""
    code, models = 0, MODELS.match(*args.models or "*")
    for model in sorted(models, key=lambda name: giga_macs(MODELS.get(name))):
        for name in (name for name in plan.cases_of(model) if name in args.case):
            argv = command(plan.job(model, name), args.cpu, args.time_limit)
            status = abs(subprocess.run(argv, cwd=ROOT, check=False).returncode)
            code = max(code, 0 if status == 1 else status)  # a gate that fails is a result
    return code


def all_runs() -> record.Runs:
    """Return the committed record with what has been measured since in its place."""
    runs = record.stored_runs(json.loads(RECORD.read_text("utf-8")))
    for path in sorted(STORED.glob("**/*.json")):
        report = Report.from_dict(json.loads(path.read_text("utf-8")))
        (case,) = report.cases
        name = plan.EAGER if path.parent.name == plan.EAGER else case.backend
        if case.recipe == plan.job(case.model, name).recipe.hash:
            record.add_report(runs, path.relative_to(STORED).parts[0], report, name)
        else:
            print(f"{path}: measure again, the recipe has changed", file=sys.stderr)
    return runs


def promises(runs: record.Runs) -> dict[str, measured.ModelMeasurements]:
    """Return what the results let the recipes promise; models without results stay as they are."""
    models = dict(measured.load_measurements())
    for model in (recipe.model for recipe in RECIPES if recipe.fusion is None):
        members = [run for run in runs.values() if model in run["cases"] and model in run["models"]]
        if results := [{**run["models"][model], "cases": run["cases"][model]} for run in members]:
            models[model] = measured_of(results)
    return models


def write(parts: Collection[str]) -> int:
    """Write recipes, results and document as far as they are named; return the exit code."""
    if "recipes" in parts:
        write_text(measured.render(promises(all_runs())), measured.FILE)
        # Recipes are read when they are imported: the others are written by another process.
        rest = [f"--write-{name}" for name in parts if name != "recipes"]
        argv = [sys.executable, "-m", "benchmarks.coverage", *rest]
        return subprocess.run(argv, cwd=ROOT, check=False).returncode if rest else 0
    if "results" in parts:
        write_text(record.render(all_runs()), RECORD)
    if "docs" in parts:
        content = json.loads(RECORD.read_text("utf-8"))
        rewrite(DOCUMENT, "coverage", body(content, {each.model: each.backend for each in RECIPES}))
    return 0


def main() -> int:
    """Measure or write, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.coverage")
    cases = [*(backend.name for backend in TORCH_ENGINES), plan.EAGER]
    add = parser.add_argument
    add("--models", nargs="+", metavar="MODEL", help="names or wildcards")
    add("--case", nargs="+", choices=cases, default=cases, help="backends, or eager")
    add("--cpu", default="native", help="name of the run; avx2 if variables choose that")
    add("--time-limit", type=float, default=1800, help="seconds for each case")
    for name, text in PARTS.items():
        add(f"--write-{name}", dest="write", action="append_const", const=name, help=text)
    args = parser.parse_args()
    return write(args.write) if args.write else measure(args)


if __name__ == "__main__":
    sys.exit(main())
