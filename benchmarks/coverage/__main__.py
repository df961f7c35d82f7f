"""Measure every model on every backend, and write down what came of it.

``python -m benchmarks.coverage`` calls ``ptqbench run --resume`` for each model, the cheapest
first; what is measured already is in ``build/coverage/``. ``--write-recipes`` turns the results
into ``ptqbench/recipes/measured.json``, ``--write-results`` into ``fixtures/coverage.json``,
judged by the thresholds that the recipes then have, and ``--write-docs`` shows that in
docs/coverage.md. ``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
FBGEMM_ENABLE_INSTRUCTIONS=AVX2 python -m benchmarks.coverage --cpu avx2`` leaves newer
instructions alone. That makes no older CPU of this one: the engine x86 chooses between FBGEMM and
oneDNN by what the CPU can do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from benchmarks.blocks import BUILD, ROOT, rewrite
from benchmarks.coverage import plan, record
from benchmarks.coverage.document import body
from benchmarks.coverage.thresholds import measured_of
from benchmarks.probe import giga_macs
from ptqbench.core.atomic import write_text
from ptqbench.evaluation.result import Report
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES
from ptqbench.recipes.measured import FILE as MEASURED
from ptqbench.recipes.measured import ModelMeasurements, load_measurements, render
from ptqbench.recipes.toml_format import to_toml

STORED = BUILD / "coverage"
RECORD = ROOT / "fixtures" / "coverage.json"
DOCUMENT = ROOT / "docs" / "coverage.md"


def command(job: plan.Job, cpu: str, time_limit: float) -> list[str]:
    """Return the command that measures a job; its recipe is written to a file."""
    folder = STORED / cpu / (plan.EAGER if job.eager else "")
    recipe = folder / "recipes" / f"{job.recipe.model}.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    write_text(to_toml(job.recipe), recipe)
    argv = [sys.executable, "-m", "ptqbench", "run", job.recipe.model, "--isolate"]
    argv += ["--recipe", str(recipe), "--weights", job.weights, "--limit", str(job.images)]
    argv += ["--resume", str(folder), "--time-limit", str(time_limit)]
    return argv + [part for name in job.backends for part in ("--backend", name)]


def measure(args: argparse.Namespace) -> int:
    """Measure what is missing; return the exit code."""
    models = MODELS.match(*args.models or "*")
    codes = [
        subprocess.run(command(job, args.cpu, args.time_limit), cwd=ROOT, check=False).returncode
        for model in sorted(models, key=lambda name: giga_macs(MODELS.get(name)))
        for job in plan.jobs(model, tuple(n for n in plan.cases_of(model) if n in args.case))
    ]
    return max(codes) if max(codes) > 1 else 0  # a gate that fails is a result


def all_runs() -> record.Runs:
    """Return the committed record with what has been measured since in its place."""
    runs = record.stored_runs(json.loads(RECORD.read_text("utf-8")))
    for path in sorted(STORED.glob("**/*.json")):
        report = Report.from_dict(json.loads(path.read_text("utf-8")))
        (case,) = report.cases
        name = plan.EAGER if path.parent.name == plan.EAGER else case.backend
        (job,) = plan.jobs(case.model, (name,))
        if case.recipe == job.recipe.hash:
            record.add_report(runs, path.relative_to(STORED).parts[0], report, name)
        else:
            print(f"{path}: measure again, the recipe has changed", file=sys.stderr)
    return runs


def promises(runs: record.Runs) -> dict[str, ModelMeasurements]:
    """Return what the results let the recipes promise; models without results stay as they are."""
    models = dict(load_measurements())
    for model in (recipe.model for recipe in RECIPES if recipe.fusion is None):
        results = {
            cpu: {**run["models"][model], "cases": run["cases"][model]}
            for cpu, run in runs.items()
            if model in run["cases"] and model in run["models"]
        }
        if results:
            models[model] = measured_of(results)
    return models


def write_recipes() -> None:
    """Write the measured part of the recipes."""
    write_text(render(promises(all_runs())), MEASURED)


def write_results() -> None:
    """Write the record, judged by today's recipes."""
    write_text(record.render(all_runs()), RECORD)


def write_docs() -> None:
    """Write the document, from the record."""
    content = json.loads(RECORD.read_text("utf-8"))
    rewrite(DOCUMENT, "coverage", body(content, {each.model: each.backend for each in RECIPES}))


_WRITERS = {"recipes": write_recipes, "results": write_results, "docs": write_docs}


def main() -> int:
    """Measure or write, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.coverage")
    cases = [*plan.BACKENDS.names(), plan.EAGER]
    add = parser.add_argument
    add("--models", nargs="+", metavar="MODEL", help="names or wildcards")
    add("--case", nargs="+", choices=cases, default=cases, help="backends, or eager")
    add("--cpu", default="native", help="name of the run; avx2 if variables choose that")
    add("--time-limit", type=float, default=1800, help="seconds for each case")
    for name, write in _WRITERS.items():
        add(f"--write-{name}", dest="write", action="append_const", const=name, help=write.__doc__)
    args = parser.parse_args()
    if not args.write:
        return measure(args)
    first, *others = (name for name in _WRITERS if name in args.write)
    _WRITERS[first]()
    if rest := [f"--write-{name}" for name in others]:
        # Recipes are read when they are imported: the others are written by another process.
        subprocess.run([sys.executable, "-m", "benchmarks.coverage", *rest], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
