"""Measure every model on every backend, and write down what came of it.

``python -m benchmarks.coverage`` measures what has not been measured yet, the cheapest models
first, and keeps a file for each in ``build/coverage/``. ``--write-recipes`` turns the results
into ``ptqbench/recipes/measured.json``, ``--write-results`` into ``fixtures/coverage.json``,
judged by the thresholds that the recipes then have, and ``--write-docs`` makes
docs/coverage.md of that.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.blocks import ROOT
from benchmarks.coverage import keys, results, sweep
from benchmarks.coverage.document import document
from benchmarks.coverage.records import accuracy_of
from benchmarks.coverage.thresholds import measured_of
from ptqbench.core.atomic import atomic_path
from ptqbench.models.catalog import MODELS
from ptqbench.models.import_torchvision import import_torchvision
from ptqbench.recipes import RECIPES
from ptqbench.recipes.measured import FILE as MEASURED
from ptqbench.recipes.measured import load_measurements
from ptqbench.recipes.measured import render as render_measured

MAIN = "native"
"""What the document begins with, and recipes recommend a backend by."""
RESULTS = ROOT / "fixtures" / "coverage.json"
DOCUMENT = ROOT / "docs" / "coverage.md"
BACKENDS = ("x86", "fbgemm", "onednn", "qnnpack")


def giga_macs(model: str) -> float:
    """What torchvision says that a picture costs, in 1e9 multiply-adds: to begin with the cheap."""
    weights = import_torchvision().models.get_model_weights(model)
    return min(float(each.meta["_ops"]) for each in weights)


def cases_of(model: str, asked: Sequence[str]) -> tuple[str, ...]:
    """The cases that a model has: eager mode beside FX where there is a quantizable variant."""
    both = MODELS.get(model).quantizable is not None and RECIPES.get(model).flow == "fx"
    return tuple(name for name in asked if name != keys.EAGER or both)


def jobs(
    models: Sequence[str], asked: Sequence[str], cpu: str, weights: str | None
) -> list[sweep.Job]:
    """What is to be measured, the cheapest first."""
    code = keys.code_hash()
    found = []
    for name in sorted(models, key=giga_macs):
        recipe = RECIPES.get(name)
        found.append(
            sweep.Job(
                name,
                source := weights or keys.weights_of(name),
                cases_of(name, asked),
                keys.key(recipe, source, code, cpu),
                cpu,
                keys.method(recipe),
                recipe.backend,
            )
        )
    return found


def measure(given: argparse.Namespace) -> None:
    models = MODELS.match(*given.models) if given.models else MODELS.names()
    folder = sweep.RESULTS / given.cpu
    starting = sweep.Starting(
        tuple(shlex.split(given.build_with)),
        tuple(shlex.split(given.time_with)),
        given.limit,
        given.images,
    )
    begun = time.perf_counter()
    for job in jobs(models, given.backend, given.cpu, given.weights):
        started = time.perf_counter()
        if given.minutes is not None and started - begun > 60 * given.minutes:
            print("The time is over; the same command goes on from here.", flush=True)
            sys.exit(2)
        result = sweep.stored(folder, job.model)
        did = ""
        if "build" in given.steps and sweep.missing(job, result, folder, given.again):
            result = sweep.build(job, folder, given.again, starting)
            did = "built"
        if "time" in given.steps and sweep.untimed(result):
            result = sweep.time(job, folder, starting)
            did += " timed"
        if did:
            print(f"{job.model}: {did}, {time.perf_counter() - started:.0f} s", flush=True)
            for name, case in result["cases"].items():
                print(f"  {name:8} {line(case)}", flush=True)


def line(case: sweep.Json) -> str:
    """A line about a case, for whoever watches."""
    if case["status"] != "measured":
        return f"{case['status']}: {case['reason']}"
    accuracy = accuracy_of(case)
    bad = [name for name, verdict in case["gates"].items() if verdict != "pass"]
    speed = f"{case['speed']['speedup'][0]:.2f}×" if "speed" in case else case.get("speed_reason")
    return (
        f"top-1 {accuracy.float32_top1:.3f} → {accuracy.int8_top1:.3f} of {accuracy.n}, "
        f"agreement {accuracy.agreement.value:.3f}, {accuracy.sqnr_db:.1f} dB, "
        f"size {case['size'][0] / case['size'][1]:.2f}×, speed {speed} {' '.join(bad)}"
    )


def all_results() -> dict[str, dict[str, sweep.Json]]:
    """Results by how the CPU was restricted and by model, of today's way to quantize.

    What was not measured here comes from the committed record.
    """
    kept = results.results_of(json.loads(RESULTS.read_text("utf-8"))) if RESULTS.exists() else {}
    found: dict[str, dict[str, sweep.Json]] = {}
    for cpu in sorted({*sweep.RESTRICTED}, key=MAIN.__ne__):
        for model in MODELS.names():
            recipe = RECIPES.get(model)
            result = sweep.stored(sweep.RESULTS / cpu, model) or kept.get(cpu, {}).get(model)
            if not result:
                continue
            if "method" not in result:
                today = results.of_today(recipe, result)
            else:
                same = result["method"] == keys.method(recipe)
                today = result if same else {**result, "cases": {}}
            if gone := sorted(set(result["cases"]) - set(today["cases"])):
                names = ", ".join(gone)
                print(f"{model} ({cpu}): measure again, the recipe has changed: {names}")
            if today["cases"]:
                found.setdefault(cpu, {})[model] = today
        _check_of_one_cpu(cpu, found.get(cpu, {}))
    return found


def _check_of_one_cpu(cpu: str, by_model: Mapping[str, sweep.Json]) -> None:
    machines = [result["machine"] for result in by_model.values() if "machine" in result]
    sets = sorted({str(machine["instruction_set"]) for machine in machines})
    if len(sets) > 1:
        sys.exit(
            f"Results of CPUs with {' and '.join(sets)} would be one run, {cpu}: measure with "
            f"--cpu on the lesser one, or remove what is in {_place(sweep.RESULTS / cpu)}."
        )


def write_recipes() -> None:
    """What the results let the recipes promise; models without results keep what they have."""
    found = all_results()
    models = dict(load_measurements())
    for model in MODELS.names():
        of_model = {cpu: by_model[model] for cpu, by_model in found.items() if model in by_model}
        if of_model and RECIPES.get(model).fusion is None:
            models[model] = measured_of(RECIPES.get(model), of_model)
    _write(MEASURED, render_measured(models))


def write_results() -> None:
    """The record of the matrix, judged by today's recipes."""
    recipes = {recipe.model: recipe for recipe in RECIPES}
    expected = {model: cases_of(model, [*BACKENDS, keys.EAGER]) for model in RECIPES.names()}
    _write(RESULTS, results.render(results.record(recipes, all_results(), expected)))


def write_docs() -> None:
    """The document, from the record."""
    content = json.loads(RESULTS.read_text("utf-8"))
    recommended = {recipe.model: recipe.backend for recipe in RECIPES}
    _write(DOCUMENT, document(content, recommended))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")
    print(f"{_place(path)} written", file=sys.stderr)


def _place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.coverage")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="names or wildcards")
    every = [*BACKENDS, keys.EAGER]
    parser.add_argument("--backend", nargs="+", choices=every, default=every, metavar="BACKEND")
    parser.add_argument("--weights", help="instead of fixture where they ship, and probe")
    parser.add_argument("--again", action="store_true", help="whatever was measured before")
    parser.add_argument(
        "--cpu",
        choices=list(sweep.RESTRICTED),
        default="native",
        help="leave the newer instructions of this CPU alone",
    )
    parser.add_argument(
        "--steps",
        nargs="+",
        choices=["build", "time"],
        default=["build", "time"],
        help="build (one thread; other work may go on beside it), time (wants a quiet machine)",
    )
    parser.add_argument(
        "--build-with", default="", metavar="CMD", help="put in front of what builds, e.g. nice"
    )
    parser.add_argument(
        "--time-with", default="", metavar="CMD", help="put in front of what times, e.g. a lock"
    )
    parser.add_argument("--minutes", type=float, help="begin no model after that; exit with 2")
    parser.add_argument("--images", type=int, help="evaluation images, instead of the plan's")
    parser.add_argument("--limit", type=float, default=sweep.LIMIT_S, help="s for each step")
    parser.add_argument("--write-recipes", action="store_true", help=f"{_place(MEASURED)}")
    parser.add_argument("--write-results", action="store_true", help=f"{_place(RESULTS)}")
    parser.add_argument("--write-docs", action="store_true", help=f"{_place(DOCUMENT)}")
    given = parser.parse_args()
    if given.write_recipes:
        write_recipes()
        if given.write_results or given.write_docs:
            # Recipes are read when they are imported: by another process, now.
            rest = [f"--write-{n}" for n in ("results", "docs") if getattr(given, f"write_{n}")]
            subprocess.run([sys.executable, "-m", "benchmarks.coverage", *rest], check=True)
        return
    if given.write_results:
        write_results()
    if given.write_docs:
        write_docs()
    if not (given.write_results or given.write_docs):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # children end with it
        measure(given)


if __name__ == "__main__":
    sys.exit(main())
