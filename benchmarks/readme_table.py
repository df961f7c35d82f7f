"""Measure every model on every backend and write the table in README.md.

``python -m benchmarks.readme_table`` runs the shipped models, each in a run of its own, keeps
the results in ``build/readme/MODEL.json`` and rewrites the block. Named models are measured
anew and take the others from there. ``--from FILE.json …`` formats results without measuring.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.blocks import BUILD, ROOT, rewrite, table
from ptqbench.core.package_data import SHIPPED
from ptqbench.recipes import RECIPES
from ptqbench.reporting.format import (
    arrow,
    decibel,
    number,
    pair,
    percent,
    significant,
    span,
    times,
)

RESULTS = BUILD / "readme"
BACKENDS = ("fbgemm", "x86", "onednn", "qnnpack")
COMMAND = "python -m benchmarks.readme_table"
HEADING = (
    "Model",
    "Backend",
    "Top-1 %",
    "Agreement %",
    "Logit SQNR",
    "Size MB",
    "Latency ms",
    "Speedup (95 %)",
    "Verdict",
)
_BAD = ("fail", "inconclusive", "unverified")

Json = Mapping[str, Any]


def measure(model: str, backends: Sequence[str], path: Path) -> None:
    """Judge one model on all backends, and keep the result."""
    from ptqbench.core.atomic import write_text
    from ptqbench.evaluation.run import run_requests
    from ptqbench.reporting.json_report import to_json
    from ptqbench.reporting.progress_display import progress_display
    from ptqbench.settings.requests import CaseRequest

    with progress_display() as progress:
        report = run_requests([CaseRequest(model, tuple(backends), "the table")], progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(to_json(report), path)


def verdict(case: Json) -> str:
    """The worst verdict, with the gates that did not pass."""
    if case["verdict"] == "pass":
        return "pass"
    parts = []
    for kind in _BAD:
        names = [gate["name"] for gate in case["gates"] if gate["verdict"] == kind]
        if len(names) == len(case["gates"]) and kind == "unverified":
            return f"unverified: {case['gates'][0]['detail']}" if names else "unverified"
        if names:
            parts.append(f"{kind}: {', '.join(names)}")
    return "; ".join(parts)


def row(case: Json) -> tuple[str, ...]:
    """One case by the columns of ``HEADING``; the recommended backend is in bold."""
    metrics = {name: number(value) for name, value in case["metrics"].items()}
    recommended = case["model"] in RECIPES and RECIPES.get(case["model"]).backend
    name = case["backend"]
    sides = ("float32", "int8")
    megabytes = [
        significant(None if size is None else size / 1e6)
        for size in (metrics[f"{side}_bytes"] for side in sides)
    ]
    ratio = metrics["size_ratio"]
    interval = pair(case["facts"].get("speedup_interval"))
    return (
        case["model"],
        f"**{name}**" if name == recommended else name,
        arrow(*(percent(metrics[f"{side}_top1"]) for side in sides)),
        percent(metrics["agreement"]),
        decibel(metrics["sqnr_db"]),
        arrow(*megabytes) + ("" if ratio is None else f" ({times(ratio)})"),
        arrow(*(significant(metrics[f"{side}_latency_ms"]) for side in sides)),
        times(metrics["speedup"]) + (f" ({span(interval)})" if interval else ""),
        verdict(case),
    )


def machine(report: Json) -> str:
    facts = report["machine"]
    return (
        f"{facts['cpu']} ({facts['instruction_set']}, {facts['physical_cores']} physical cores), "
        f"{facts.get('system', '')}, Python {facts['python']}, torch {facts['torch']}, "
        f"ptqbench {report['ptqbench_version']}"
    )


def conditions(cases: Iterable[Json]) -> str:
    """At what input and on how many images it was measured, and the noise floor."""
    facts = [case["facts"] for case in cases if case["facts"].get("input_shape")]
    if not facts:
        return ""
    shapes = sorted({"×".join(map(str, fact["input_shape"])) for fact in facts})
    threads = sorted({str(fact["threads"]) for fact in facts})
    images = sorted({fact["evaluation_images"] for fact in facts})
    counts = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    noise = [limits for fact in facts if (limits := pair(fact["noise_interval"]))]
    floor = (min(low for low, _ in noise), max(high for _, high in noise))
    return (
        f"Latency at {', '.join(shapes)} on {', '.join(threads)} threads against the fastest "
        f"float32 TorchScript; float32 against itself came out at {span(floor, 3)}. "
        f"Accuracy on {counts} images."
    )


def block(reports: Sequence[Json]) -> str:
    cases = [case for report in reports for case in report["cases"]]
    machines = dict.fromkeys(machine(report) for report in reports)
    lines = [
        table(HEADING, map(row, cases), right=range(2, 8)),
        "",
        f"Measured on {'; '.join(machines)}. {conditions(cases)} "
        "In bold: the backend that the recipe recommends.",
        f"Made by `{COMMAND}`.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: the shipped ones")
    parser.add_argument("--from", nargs="+", type=Path, dest="files", metavar="FILE.json")
    arguments = parser.parse_args()
    files = arguments.files
    if files is None:
        for model in arguments.models or SHIPPED:
            measure(model, BACKENDS, RESULTS / f"{model}.json")
        paths = (RESULTS / f"{model}.json" for model in SHIPPED)
        files = [path for path in paths if path.is_file()]
    reports = [json.loads(path.read_text("utf-8")) for path in files]
    rewrite(ROOT / "README.md", "results", block(reports))


if __name__ == "__main__":
    main()
