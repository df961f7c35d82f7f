"""What a gate judges, measured on its own, so that each test measures only what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend, Model
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.float_reference import read_float_graph
from ptqbench.core.registry import Registry
from ptqbench.evaluation.case import BATCH_SIZE, Subject, inspection_images, made_by
from ptqbench.gates import GATES, Evidence, Thresholds, stopping_rule
from ptqbench.measurement.accuracy import Accuracy, measure_accuracy
from ptqbench.measurement.artifact_inspection import ArtifactInspection
from ptqbench.measurement.fidelity import Fidelity
from ptqbench.measurement.replay import NotStartedError
from ptqbench.measurement.size import Size, measure_size
from ptqbench.measurement.speed import Speed, measure_speed, pick_fastest, that_run
from ptqbench.testing.shared_cache import SharedFolder, SharedLogits


class NotMeasured(Exception):
    """Why something cannot be measured here; the gate that needs it is unverified."""


@dataclass(frozen=True)
class Bench:
    """A case that is ready to be measured.

    Attributes:
        subject: The float32 model with everything that goes with it.
        backend: What executes int8.
        int8: The int8 artifact.
        float32: The float32 artifact.
        thresholds: What the gates ask for.
        folder: Shared by all workers; holds what belongs to these weights and images.
        workers: How many processes run tests side by side.
    """

    subject: Subject
    backend: Backend
    int8: Artifact
    float32: Artifact
    thresholds: Thresholds
    folder: SharedFolder
    workers: int

    @cached_property
    def inside(self) -> ArtifactInspection:
        """Looks inside the int8 artifact; the gates that do so share it."""
        images = inspection_images(self.subject)
        made = made_by(self.subject, self.backend, self.int8)
        reference = read_float_graph(self.subject.model, images[:1])
        return ArtifactInspection(made, self.int8.load(), reference, images)


Measure = Callable[[Bench], object]

MEASURES: Registry[Measure] = Registry("measurement")
"""How a field of `Evidence` is measured, by its name."""


def needs_of(gate: str) -> str:
    """The field of `Evidence` that a gate judges.

    Without any measurement a gate says why the one that it needs is missing; here the
    reason is the name of the field.
    """
    names = {field.name: field.name for field in fields(Evidence)}
    probe = Evidence(Thresholds(), "", missing=names)
    return GATES.get(gate)(probe).detail


def measure_paired(bench: Bench) -> Accuracy:
    """Accuracy on the evaluation images; logits that a worker has computed are looked up.

    float32 runs as it is saved and not in its fastest lowering, which another worker may
    choose otherwise: the logits would not be the same ones.
    """
    shared = SharedLogits(
        bench.folder,
        bench.subject.data.evaluation,
        {"float32": bench.float32.load, bench.int8.path.stem: bench.int8.load},
        BATCH_SIZE,
    )
    return measure_accuracy(
        shared.model("float32"),
        shared.model(bench.int8.path.stem),
        shared,
        batch_size=BATCH_SIZE,
        stop_when=stopping_rule(bench.thresholds),
    )


def measure_bytes(bench: Bench) -> Size:
    """Sizes of both artifacts."""
    return measure_size(bench.float32.path, bench.int8.path)


def measure_pairs(bench: Bench) -> Speed:
    """Speedup, interleaved.

    Raises:
        NotMeasured: Other workers run beside this one.
    """
    if bench.workers > 1:
        raise NotMeasured(
            f"Speed is not measured while {bench.workers} pytest-xdist workers run side by side: "
            "they take the CPU from each other. Run the speedup tests on their own, "
            "`pytest -k speedup -n 0`."
        )
    timing = bench.subject.timing
    example = timing.example()
    here = instruction_set()
    lowerings = that_run(bench.backend.float_lowerings(bench.float32), example)
    candidates: dict[str, Model] = {**lowerings, "eager": bench.subject.model}
    _, times = pick_fastest(candidates, example, threads=timing.threads, rounds=5)
    fastest = min(lowerings, key=times.__getitem__)
    return measure_speed(
        lowerings[fastest],
        bench.int8.load(),
        example,
        threads=timing.threads,
        threshold=bench.thresholds.speedup.get(here) if here in bench.backend.targets else None,
        float32_plain_ms=times["eager"],
    )


def measure_replayed(bench: Bench) -> Fidelity:
    """Logits of a fresh process.

    Raises:
        NotMeasured: No process could be started.
    """
    try:
        return bench.inside.fidelity
    except NotStartedError as error:
        raise NotMeasured(str(error)) from None


MEASURES.add("accuracy", measure_paired)
MEASURES.add("size", measure_bytes)
MEASURES.add("speed", measure_pairs)
MEASURES.add("fusion", lambda bench: bench.inside.fusion)
MEASURES.add("conversion", lambda bench: bench.inside.conversion)
MEASURES.add("fidelity", measure_replayed)
MEASURES.add("saturation", lambda bench: bench.inside.saturation)
