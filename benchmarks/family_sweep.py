"""What each family's recipe is tuned by: ``python -m benchmarks.family_sweep [MODEL ...]``.

Quantizes one member of each family under probe weights (a trained one where it ships), with its
recipe and with one thing at a time left in float32, or no longer left: the first and last layer,
squeeze-excitation, activations, sums, concatenations; and with the other side giving up the bit
that x86 has too many. Rewrites the table in docs/recipes.md; a file for each model stays in
``build/families/``, so that models can be measured one by one. Nothing is timed, and so other work
may go on beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks.blocks import BUILD, ROOT, rewrite, table
from benchmarks.coverage import plan
from benchmarks.probe import giga_macs
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import cpu_name, instruction_set
from ptqbench.core.atomic import atomic_path
from ptqbench.core.package_data import SHIPPED
from ptqbench.core.phases import Phases
from ptqbench.core.progress import silent
from ptqbench.evaluation.case import CaseEvaluation
from ptqbench.evaluation.fields import macs_facts
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.open_subject import open_subject
from ptqbench.evaluation.subject import Subject
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.completion import complete_recipe
from ptqbench.quantization.fusion_groups import FUNCTIONS
from ptqbench.quantization.fx_tracing import Tracer
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.family import FAMILIES, family
from ptqbench.reporting.format import percent
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.weights_specifier import FIXTURE, PROBE
from ptqbench.weights.probe.head_search import layers_of

COMMAND = "python -m benchmarks.family_sweep"
RESULTS = BUILD / "families"
MEMBERS = (
    *("alexnet", "vgg11_bn", "resnet50", "squeezenet1_0", "densenet121", "googlenet"),
    *("inception_v3", "shufflenet_v2_x1_5", "mobilenet_v3_small", "mnasnet1_0", "efficientnet_b1"),
    *("regnet_y_1_6gf", "convnext_tiny", "vit_b_32", "swin_t", "maxvit_t"),
)
"""One of each family."""
BACKENDS_MEASURED = ("x86", "qnnpack")
"""Seven-bit weights and eight-bit ones, on every CPU: onednn has either, as the CPU demands."""
HEADING = (
    *("Family", "Model", "Weights", "Backend", "Recipe", "Images", "int8 MACs %", "Size"),
    *("Agreement %", "SQNR dB", "Difference"),
)
KINDS: Mapping[str, tuple[str, ...]] = {
    "squeeze-excitation": ("SqueezeExcitation", "SElayer"),
    "hard-swish": ("Hardswish",),
    "BatchNorm without convolution": ("_DenseLayer",),
}
"""Classes of the modules that a variant leaves in float32."""
CALLS = {"<add>": "sums", "<cat>": "concatenations"}


def called(model: nn.Module) -> frozenset[str]:
    """The functions of `FUNCTIONS` that a model's graph calls."""
    targets = [node.target for node in Tracer().trace(model).nodes]
    return frozenset(
        name
        for name, functions in FUNCTIONS.items()
        if any(target is each or target == each for target in targets for each in functions)
    )


def of_kind(model: nn.Module, kind: str) -> tuple[str, ...]:
    """Paths of what a variant of `KINDS` leaves in float32."""
    paths = [path for path, m in model.named_modules() if type(m).__name__ in KINDS[kind]]
    if kind.startswith("BatchNorm"):
        return tuple(f"{path}.norm1" for path in paths)
    return tuple(paths)


def variants(recipe: Recipe, model: nn.Module, *, saturates: bool) -> Iterator[tuple[str, Recipe]]:
    """The shipped recipe, and what differs from it in one choice."""
    names = ", ".join(f"`{name}`" for name in recipe.keep_float)
    yield "**shipped**" + (f", float: {names}" if names else ""), recipe
    layers = {"first layer": layers_of(model)[0][0], "last layer": layers_of(model)[-1][0]}
    modules: dict[str, tuple[str, ...]] = {what: (path,) for what, path in layers.items()}
    modules |= {kind: of_kind(model, kind) for kind in KINDS}
    for what, paths in modules.items():
        if paths and not set(paths) <= set(recipe.keep_float):
            yield f"{what} in float32", replace(recipe, keep_float=(*recipe.keep_float, *paths))
    for name, what in CALLS.items():
        if name in recipe.keep_float:
            rest = tuple(each for each in recipe.keep_float if each != name)
            yield f"{what} in int8", replace(recipe, keep_float=rest)
        elif name in called(model):
            yield f"{what} in float32", replace(recipe, keep_float=(*recipe.keep_float, name))
    yield "ranges by min and max", replace(recipe, observer="minmax")
    if saturates:
        yield "7-bit activations, 8-bit weights", replace(recipe, spare_bit="activations")


def kind(source: str) -> str:
    """What the table calls weights: a file was trained by somebody."""
    return source if source in (PROBE, FIXTURE) else "trained"


def measure(
    name: str, backends: Sequence[str], images: int | None, source: str
) -> list[dict[str, Any]]:
    """Rows of one model under a source of weights, as they are stored."""
    rows = []
    images = images or plan.image_count(giga_macs(MODELS.get(name)), plan.EVALUATION)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        settings = RunSettings(weights=source, limit=images, threads=1, artifacts=folder)
        recipe = plan.open_recipe(RECIPES.get(name))
        subject = open_subject(recipe, settings, stack, silent, Phases())
        reference = FloatReference(subject, BACKENDS.get(backends[0]), Phases())
        for backend in backends:
            saturates = BACKENDS.get(backend).saturates()
            for label, variant in variants(RECIPES.get(name), subject.model, saturates=saturates):
                row = {"model": name, "backend": backend, "recipe": label, "weights": kind(source)}
                rows.append({**row, **measured(subject, reference, variant, backend)})
                print(*as_row(rows[-1]), sep=" | ", flush=True)
    return rows


def measured(
    subject: Subject, reference: FloatReference, variant: Recipe, backend: str
) -> dict[str, Any]:
    """One variant on one backend."""
    costs = giga_macs(MODELS.get(variant.model))
    calibrated = min(variant.calibration_images, plan.image_count(costs, plan.CALIBRATION))
    declared = plan.open_recipe(replace(variant, fusion=None, calibration_images=calibrated))
    recipe = complete_recipe(declared, subject.quantizable(), subject.latency.example())
    changed = replace(subject, recipe=declared, completed=recipe)
    path = subject.folder / f"{backend}.pt"
    artifact = build_int8(changed, BACKENDS.get(backend), Phases(), path)
    case = CaseEvaluation(changed, BACKENDS.get(backend), artifact, reference)
    accuracy = case.measurement("accuracy")
    share = macs_facts(reference.macs, case.measurement("conversion"))["int8_share_of_macs"]
    return {
        "images": accuracy.n,
        "int8_share_of_macs": share,
        "size_ratio": case.measurement("size").ratio,
        "agreement": accuracy.agreement.value,
        "sqnr_db": accuracy.sqnr_db,
    }


def as_row(row: Mapping[str, Any], shipped: float | None = None) -> tuple[str, ...]:
    """A row of the table; ``shipped`` is the SQNR of the shipped recipe, in dB."""
    return (
        family(row["model"]),
        row["model"],
        row["weights"],
        row["backend"],
        row["recipe"],
        str(row["images"]),
        percent(row["int8_share_of_macs"]),
        f"{row['size_ratio']:.2f}×",
        percent(row["agreement"]),
        f"{row['sqnr_db']:.1f}",
        "" if shipped is None else f"{row['sqnr_db'] - shipped:+.1f}",
    )


def rows_of(stored: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The rows of a model, each with its difference from the shipped recipe."""
    shipped: dict[str, float] = {}
    for row in sorted(stored, key=lambda row: str(row["backend"])):
        first = row["backend"] not in shipped
        shipped.setdefault(row["backend"], row["sqnr_db"])
        yield as_row(row, None if first else shipped[row["backend"]])


def write() -> None:
    """The table of all models that have been measured."""
    contents = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    order = list(FAMILIES)
    contents.sort(key=lambda content: order.index(family(content[0]["model"])))
    families = {family(content[0]["model"]) for content in contents}
    rows = [row for content in contents for row in rows_of(content)]
    lines = [
        table(HEADING, rows, right=range(5, 11)),
        "",
        f"{len(families)} of {len(FAMILIES)} families, on {cpu_name()} ({instruction_set()}), "
        f"torch {torch.__version__}. Made by `{COMMAND}`, with `--images` for that column.",
    ]
    rewrite(ROOT / "docs" / "recipes.md", "families", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("models", nargs="*", default=MEMBERS, metavar="MODEL")
    parser.add_argument("--backend", action="append", help="default: x86 and qnnpack")
    parser.add_argument("--images", type=int, help="evaluation images, instead of the plan's")
    parser.add_argument("--weights", metavar="NAME", help="a source or a file")
    parser.add_argument("--table", action="store_true", help="only write the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in () if args.table else args.models:
        source = args.weights or (FIXTURE if name in SHIPPED else PROBE)
        rows = measure(name, args.backend or BACKENDS_MEASURED, args.images, source)
        with atomic_path(RESULTS / f"{name}-{kind(source)}.json") as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    write()


if __name__ == "__main__":
    main()
