"""Do an artifact's int8 layers compute what integers would, here and without VNNI?

Layer by layer: the artifact runs on a few images, and the output of each int8 layer is
compared with exact integer arithmetic on the very input that it read. Errors do not add up
from layer to layer, so that a layer that is named is one that saturates itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.backend import Backend, Model
from ptqbench.backends.graph import Graph, Operator
from ptqbench.backends.integer_reference import (
    LayerTraffic,
    exact_output,
    highest_inputs,
    leaves_int16,
)
from ptqbench.core.phases import Phases
from ptqbench.measurement.layer_matching import match_layers
from ptqbench.measurement.sqnr import LogitNoise
from ptqbench.quantization.pairing import Pairing

STEP = 1.0
"""Engines round once more or less than the exact reference: one output step is not an error."""


@dataclass(frozen=True)
class LayerArithmetic:
    """One int8 layer against exact integer arithmetic.

    Attributes:
        name: Module path.
        outputs: Outputs compared; 0 if its traffic could not be recorded.
        wrong: Outputs more than one step off.
        worst: Largest difference in output steps.
        by_weights: Whether its weights let two products leave 16 bits for some input.
        by_images: Whether they do for the largest inputs that the images gave.
    """

    name: str
    outputs: int
    wrong: int
    worst: float
    by_weights: bool
    by_images: bool


@dataclass(frozen=True)
class ExactExecution:
    """A file as it runs here, and with the runtime's own kernels that cannot saturate.

    Attributes:
        way: How the runtime is told to execute it exactly.
        images: How many ran both ways.
        changed: For how many both predict different classes.
        sqnr_db: SQNR of the logits against float32 as the file runs here.
        exact_sqnr_db: The same, executed exactly.
    """

    way: str
    images: int
    changed: int
    sqnr_db: float
    exact_sqnr_db: float


@dataclass(frozen=True)
class Saturation:
    """How the int8 layers of an artifact compare with exact arithmetic.

    Attributes:
        engine: Name of the engine.
        probe: Share of the true value that full-range layers compute, by kind; 1 is exact;
            empty if the backend cannot execute a layer on its own.
        layers: Every int8 layer.
        images: How many images ran.
        saturates_elsewhere: Whether the engine's kernels add in 16 bits on CPUs without
            VNNI, whatever today's does.
        error: Why no traffic could be recorded; empty if it was.
        advice: What to do about it in the words of the runtime's tools; may be empty.
        execution: The file against its own exact execution; None if nothing can saturate here,
            or the runtime has no such way.
        assurance: Why kernels of the backend saturate on no CPU; empty if that is not so.
    """

    engine: str
    probe: Mapping[str, float]
    layers: tuple[LayerArithmetic, ...]
    images: int
    saturates_elsewhere: bool
    error: str = ""
    advice: str = ""
    execution: ExactExecution | None = None
    assurance: str = ""

    @property
    def outputs(self) -> int:
        """Outputs compared."""
        return sum(layer.outputs for layer in self.layers)

    @property
    def wrong(self) -> int:
        """Outputs more than one step off."""
        return sum(layer.wrong for layer in self.layers)


def measure_saturation(
    path: Path,
    backend: Backend,
    reference: Graph,
    images: Tensor,
    *,
    phases: Phases | None = None,
) -> Saturation:
    """Probe the engine, and compare the artifact's layers with exact integer arithmetic.

    Args:
        path: The artifact.
        backend: What it runs on.
        reference: Graph of the float model, which has the names of layers.
        images: A few, ``N×C×H×W`` float32; two of 64×64 take well under a second.
        phases: Where the forward pass is counted.
    """
    run = backend.exact(path, images, phases)
    names = {m.layer.value: m.name for m in match_layers(run.graph, reference)}
    traffic = {each.layer.value: each for each in run.traffic}
    layers = tuple(
        _arithmetic(names[layer.value], layer, traffic.get(layer.value), backend.pairing)
        for layer in run.graph.int8_layers
    )
    return Saturation(
        engine=backend.engine,
        probe=backend.probe(),
        layers=layers,
        images=len(images),
        saturates_elsewhere=bool(backend.sums_in_16_bits),
        error=run.error,
        advice=backend.advice.get("saturation", ""),
        assurance=backend.advice.get("exact sums", ""),
    )


def measure_execution(
    path: Path, backend: Backend, float32: Model, int8: Model, images: Tensor
) -> ExactExecution | None:
    """Run a file as it runs here and exactly, if the runtime has a way that differs.

    Args:
        path: The artifact.
        backend: What it runs on.
        float32: The float32 model.
        int8: The artifact as it runs here.
        images: A few, ``N×C×H×W`` float32.
    """
    exact = backend.load_exact(path)
    if exact is None:
        return None
    with torch.inference_mode():
        reference, here, there = float32(images), int8(images), exact(images)
    return ExactExecution(
        way=backend.advice.get("exact", ""),
        images=len(images),
        changed=int((here.argmax(1) != there.argmax(1)).sum()),
        sqnr_db=LogitNoise.of(reference, here).sqnr().value,
        exact_sqnr_db=LogitNoise.of(reference, there).sqnr().value,
    )


def _arithmetic(
    name: str, layer: Operator, traffic: LayerTraffic | None, pairing: Pairing | None
) -> LayerArithmetic:
    assert layer.integers is not None
    by_weights = leaves_int16(layer.integers, pairing)
    if traffic is None:
        return LayerArithmetic(name, 0, 0, 0.0, by_weights, by_weights)
    outputs, wrong, worst = compare(traffic)
    highest = highest_inputs(layer, traffic.source)
    by_images = by_weights and leaves_int16(layer.integers, pairing, highest)
    return LayerArithmetic(name, outputs, wrong, worst, by_weights, by_images)


def compare(traffic: LayerTraffic) -> tuple[int, int, float]:
    """Outputs of a layer, how many are more than a step off, and by how many steps at most.

    Where one unit of a sum is many steps of the output, rounding the bias to a unit is as right as
    not rounding it.
    """
    layer, source, output = traffic.layer, traffic.source, traffic.output.integers.double()
    with torch.inference_mode():
        dtype = traffic.output.integers.dtype
        size = (output - exact_output(layer, source, dtype=dtype)).abs()
        if size.max() > STEP:
            other = exact_output(layer, source, integer_bias=False, dtype=dtype)
            size = size.minimum((output - other).abs())
    return size.numel(), int((size > STEP).sum()), float(size.max())
