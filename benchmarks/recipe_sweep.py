"""What each choice in a recipe is worth: ``python -m benchmarks.recipe_sweep [MODEL ...]``.

Quantizes each model with its shipped recipe and with one choice at a time exchanged, on one
backend of each kind of kernel, and rewrites the table in docs/recipes.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.blocks import ROOT, rewrite, table
from fixtures.discriminate import compare, open_subject
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import cpu_name, instruction_set
from ptqbench.core.package_data import SHIPPED
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.reporting.format import percent

COMMAND = "python -m benchmarks.recipe_sweep"
HEADING = ("Model", "Backend", "Recipe", "Top-1 %", "Agreement %", "Logit SQNR dB")


def variants(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """The shipped recipe, and what differs from it in one choice."""
    yield f"**shipped** ({recipe.flow}, {recipe.observer}, spare bit: {recipe.spare_bit})", recipe
    for bit in ("pairs", "weights", "activations", "none"):
        if bit != recipe.spare_bit:
            yield f"spare bit: {bit}", replace(recipe, spare_bit=bit)
    yield "biases as they are", replace(recipe, bias_correction=False)
    other = "minmax" if recipe.observer == "histogram" else "histogram"
    yield other, replace(recipe, observer=other)
    if MODELS.get(recipe.model).quantizable is not None:
        flow = "eager" if recipe.flow == "fx" else "fx"
        yield f"{flow} flow", replace(recipe, flow=flow)


def measure(name: str, backends: list[str], images: int) -> Iterator[tuple[str, ...]]:
    """Rows of one model."""
    recipe = RECIPES.get(name)
    with tempfile.TemporaryDirectory() as folder:
        subject = open_subject(name, images, Path(folder), BACKENDS.get(backends[0]))
        for backend in backends:
            for label, variant in variants(recipe):
                accuracy = compare(subject, variant, BACKENDS.get(backend))
                yield (
                    name,
                    backend,
                    label,
                    f"{percent(accuracy.float32_top1)} → {percent(accuracy.int8_top1)}",
                    percent(accuracy.agreement.value),
                    f"{accuracy.sqnr_db:.1f}",
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("models", nargs="*", default=list(SHIPPED), metavar="MODEL")
    parser.add_argument("--backend", action="append", help="default: onednn")
    parser.add_argument("--images", type=int, default=2_000, help="evaluation images")
    arguments = parser.parse_args()
    backends = arguments.backend or ["onednn"]
    rows: list[tuple[str, ...]] = []
    for name in arguments.models:
        for row in measure(name, backends, arguments.images):
            print(*row, sep=" | ", flush=True)
            rows.append(row)
    lines = [
        table(HEADING, rows, right=range(3, 6)),
        "",
        f"{arguments.images:,} evaluation images, on {cpu_name()} ({instruction_set()}), torch "
        f"{torch.__version__}. Made by `{COMMAND} --images {arguments.images}`.",
    ]
    rewrite(ROOT / "docs" / "recipes.md", "sweep", "\n".join(lines))


if __name__ == "__main__":
    main()
