"""One model on its backends, in a process of its own: ``python -m benchmarks.coverage.child``.

There are two steps. ``build`` quantizes, evaluates and looks inside, on one thread, so that
other work beside it does no harm, and leaves the artifacts in a folder; ``time`` times these.
What is found is appended to a file line by line, so that a process that dies takes only the
case with it that it was at.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.coverage.journal import Journal, give_back_memory, said, settle
from benchmarks.coverage.keys import EAGER, eager, open_recipe
from benchmarks.coverage.plan import MOST_IMAGES, TRAINED_IMAGES, plan, timing_plan
from benchmarks.coverage.records import encode, encode_speed
from benchmarks.coverage.remembered import Remembered
from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.graph import Graph
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.phases import Phases
from ptqbench.core.progress import silent
from ptqbench.data.image_set import ImageSet, example_image
from ptqbench.evaluation.case import Subject, calibration_batches, inspection_images, made_by
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.open_subject import open_subject
from ptqbench.evaluation.result import plain
from ptqbench.gates import Evidence
from ptqbench.measurement.accuracy import measure_accuracy
from ptqbench.measurement.artifact_inspection import ArtifactInspection
from ptqbench.measurement.macs import Macs, count_macs
from ptqbench.measurement.size import measure_size
from ptqbench.measurement.speed import measure_speed, pick_fastest
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.quantization.completion import complete_recipe
from ptqbench.recipes import RECIPES
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.thresholds import Thresholds
from ptqbench.settings.weights_specifier import PROBE

FLOAT = "float32"
BATCH_SIZE = 50


@dataclass(frozen=True)
class Fewer:
    """The first images of a set, in smaller batches."""

    images: ImageSet
    count: int
    most: int

    name = property(lambda self: self.images.name)
    classes = property(lambda self: self.images.classes)
    labelled = property(lambda self: self.images.labelled)
    limit = property(lambda self: self.count)

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self.images.batches(start, stop, min(batch_size, self.most))

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        return self.images.content_hashes(start, stop)


@dataclass
class Side:
    """The float32 side of a model: what int8 is compared with."""

    artifact: Artifact
    predictions: Remembered
    graph: Graph
    macs: Macs


def build(
    model: str,
    weights: str,
    cases: Sequence[str],
    folder: Path,
    journal: Journal,
    images: int | None = None,
) -> None:
    """Quantize, evaluate and look inside: backends by name, and ``eager``.

    Args:
        model: Registered name.
        weights: Name of their source.
        cases: What to build.
        folder: Where artifacts are left.
        journal: Where it is written down.
        images: Evaluation images; None: as the plan says.
    """
    torch.set_num_threads(1)
    recipe = open_recipe(RECIPES.get(model))
    with ExitStack() as stack:
        limit = images or (MOST_IMAGES if weights == PROBE else TRAINED_IMAGES)
        settings = RunSettings(weights=weights, limit=limit, threads=1, artifacts=str(folder))
        opened = open_subject(recipe, settings, stack, silent, Phases())
        macs = count_macs(opened.model, opened.timing.example())
        subject, facts = smaller(opened, macs, images)
        del opened
        journal.write("model", **facts)
        side = float_side(subject, macs)
        give_back_memory()
        calibrations = CalibrationCache() if len(cases) > 1 else None
        for name in cases:
            settle(
                journal, "case", name, lambda name=name: built(name, subject, side, calibrations)
            )


def smaller(subject: Subject, macs: Macs, images: int | None) -> tuple[Subject, dict[str, Any]]:
    """The subject with as many images as its cost allows, and what its cases share."""
    data = subject.data
    side = example_image(data.calibration).shape[-1]
    full = subject.timing.input_shape[-1]
    cost = macs.total * (side / full) ** 2
    chosen = plan(cost, side, trained=subject.weights != PROBE)
    evaluated = images or chosen.evaluation_images
    calibration = min(chosen.calibration_images, subject.recipe.calibration_images)
    fewer = replace(
        data,
        calibration=Fewer(data.calibration, calibration, chosen.batch_size),
        evaluation=Fewer(data.evaluation, evaluated, chosen.batch_size),
    )
    facts = {
        "weights": subject.weights,
        "weights_facts": {k: v for k, v in subject.facts.items() if k != "notes"},
        "parameters": sum(p.numel() for p in subject.model.parameters()),
        "macs": macs.total,
        "evaluation_side": side,
        "evaluation_images": evaluated,
        "calibration_images": calibration,
        "input_shape": subject.timing.input_shape,
        "fused_groups": len(subject.complete().groups),
        "int8_modules": subject.complete().int8_modules,
        "instruction_set": instruction_set(),
        "machine": machine_facts(),
    }
    shared = {name: plain(value) for name, value in facts.items()}
    return replace(subject, data=fewer), shared


def float_side(subject: Subject, macs: Macs) -> Side:
    """Lower float32, and read its graph."""
    example = next(calibration_batches(subject.data, subject.recipe))[:1]
    path = subject.folder / f"{FLOAT}.pt"
    artifact = BACKENDS.get("x86").build_float(subject.model, subject.recipe.model, example, path)
    graph = read_float_graph(subject.model, inspection_images(subject)[:1])
    return Side(artifact, Remembered(artifact.load()), graph, macs)


def built(
    name: str, subject: Subject, side: Side, calibrations: CalibrationCache | None
) -> dict[str, Any]:
    """One case: measured, refused by torch, or an error of our own."""
    recipe, backend = subject.complete(), BACKENDS.get("x86" if name == EAGER else name)
    found: dict[str, Any] = {}
    stage = "refused"
    try:
        if name == EAGER:
            declared = RECIPES.get(recipe.model)
            backend = BACKENDS.get(declared.backend)
            # Not what was completed already: the variant calls modules where FX found functions.
            declared = eager(open_recipe(declared))
            recipe = complete_recipe(declared, subject.model, subject.timing.example())
        subject = replace(subject, recipe=recipe.recipe, completed=recipe)
        found = {
            "backend": backend.name,
            "flow": recipe.flow,
            "fused_groups": len(recipe.groups),
            "int8_modules": recipe.int8_modules,
        }
        path = subject.folder / f"{name}.pt"
        artifact = build_int8(
            subject, backend, Phases(), path, calibrations=None if name == EAGER else calibrations
        )
        with torch.inference_mode():
            artifact.load()(example_image(subject.data.evaluation))
        stage = "error"
        return {"status": "measured", **found, **compared(subject, backend, artifact, side)}
    except MemoryError:
        return {"status": "died", **found, "reason": "memory ran out"}
    except Exception as error:
        traceback.print_exc()
        return {"status": stage, **found, "reason": said(error)}


def compared(subject: Subject, backend: Backend, artifact: Artifact, side: Side) -> dict[str, Any]:
    """Everything about an artifact but its speed."""
    int8 = artifact.load()
    evidence = Evidence(
        Thresholds(),
        instruction_set(),
        accuracy=measure_accuracy(
            side.predictions, int8, subject.data.evaluation, batch_size=BATCH_SIZE
        ),
        size=measure_size(side.artifact.path, artifact.path),
        kernels_for=backend.targets,
        **ArtifactInspection(
            made_by(subject, backend, artifact),
            int8,
            side.graph,
            inspection_images(subject),
        )
        .measure()
        .measurements,
    )
    return encode(evidence, side.macs, artifact.info.calibration_images)


def timed(
    folder: Path,
    cases: Sequence[str],
    shape: tuple[int, int, int, int],
    macs: int,
    journal: Journal,
) -> None:
    """Time the artifacts that ``build`` left, each in pairs with float32."""
    threads = physical_cores()
    torch.set_num_threads(threads)
    chosen = timing_plan(macs)
    lowerings = BACKENDS.get("x86").float_lowerings(Artifact.open(folder / f"{FLOAT}.pt"))
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    fastest, _ = pick_fastest(lowerings, example, threads=threads, rounds=chosen.rounds)
    float32 = lowerings[fastest]
    del lowerings  # the slower one takes as much memory as the model

    def speed(name: str) -> dict[str, Any]:
        artifact = Artifact.open(folder / f"{name}.pt")
        promised = instruction_set() in BACKENDS.get(artifact.info.backend).targets
        pairs = chosen.pairs if promised else chosen.unpromised_pairs
        found = measure_speed(
            float32,
            artifact.load(),
            example,
            threads=threads,
            threshold=None,
            min_pairs=pairs,
            max_pairs=pairs,
        )
        return {"speed": encode_speed(found), "float32_lowering": fastest}

    for name in cases:
        settle(journal, "speed", name, lambda name=name: speed(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["build", "time"])
    parser.add_argument("model")
    parser.add_argument("--weights")
    parser.add_argument("--cases", nargs="+", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int)
    parser.add_argument("--shape", nargs=4, type=int, help="N C H W of the latency")
    parser.add_argument("--macs", type=int)
    given = parser.parse_args()
    Path("/proc/self/oom_score_adj").write_text("1000")  # this process first, if memory runs out
    journal = Journal(given.journal)
    try:
        if given.step == "build":
            build(given.model, given.weights, given.cases, given.folder, journal, given.images)
        else:
            timed(given.folder, given.cases, tuple(given.shape), given.macs, journal)
    except Exception as error:
        traceback.print_exc()
        journal.write("failed", reason=said(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
