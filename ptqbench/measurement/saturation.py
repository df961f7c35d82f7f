"""Do an artifact's int8 layers compute what integers would, here and without VNNI?

Layer by layer: the artifact's graph runs on a few images, and what each int8 layer gives
is compared with exact integer arithmetic on the very input that it got. Errors do not
add up from layer to layer, so that a layer that is named is one that saturates itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ptqbench.backends.torch_engines.integer_reference import (
    Traffic,
    exact_output,
    frozen,
    highest_inputs,
    leaves_int16,
    traffic,
)
from ptqbench.backends.torch_engines.saturation_probe import probe_engine
from ptqbench.core.phases import Phases
from ptqbench.measurement.matched_graphs import Inspection, inspect_script

STEP = 1.0
"""Engines round once more or less than the exact reference: one output step is no error."""


@dataclass(frozen=True)
class LayerArithmetic:
    """One int8 layer against exact integer arithmetic.

    Attributes:
        name: Module path.
        outputs: Outputs compared; 0 if it could not be run apart.
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
class Saturation:
    """What was found about saturation.

    Attributes:
        engine: torch quantized engine.
        probe: Share of its true value that full-range layers come out at, by kind; 1 is
            exact.
        layers: Every int8 layer.
        images: How many images ran.
        saturates_elsewhere: Whether the engine's kernels add in 16 bits on CPUs without
            VNNI, whatever today's does.
        error: Why the graph could not be run apart; empty if it was.
    """

    engine: str
    probe: Mapping[str, float]
    layers: tuple[LayerArithmetic, ...]
    images: int
    saturates_elsewhere: bool
    error: str = ""

    @property
    def outputs(self) -> int:
        """Outputs compared."""
        return sum(layer.outputs for layer in self.layers)

    @property
    def wrong(self) -> int:
        """Outputs more than one step off."""
        return sum(layer.wrong for layer in self.layers)


def measure_saturation(
    inspection: Inspection,
    engine: str,
    images: Tensor,
    *,
    saturates_elsewhere: bool,
    phases: Phases | None = None,
) -> Saturation:
    """Probe the engine, and compare the artifact's layers with exact integer arithmetic.

    Args:
        inspection: The artifact beside the float model, which has the names of layers.
        engine: torch quantized engine that it runs under.
        images: A few, ``N×C×H×W`` float32; two of 64×64 take well under a second.
        saturates_elsewhere: Whether the engine adds in 16 bits on CPUs without VNNI.
        phases: Where the forward pass is counted.
    """
    script = frozen(inspection.script)
    if script is not inspection.script:
        inspection = inspect_script(script, inspection.reference)
    graph = inspection.graph
    names = {m.layer.value: m.name for m in inspection.matches}
    error = ""
    try:
        seen = {t.layer.value: t for t in traffic(script, graph, images, engine, phases)}
    except RuntimeError as failure:
        seen, error = {}, str(failure).strip().splitlines()[-1]
    layers = []
    for operator in graph.int8_layers:
        assert operator.packed is not None
        by_weights = leaves_int16(operator.packed)
        found = seen.get(operator.value)
        outputs = wrong = 0
        worst = 0.0
        by_images = by_weights
        if found is not None:
            outputs, wrong, worst = compare(found)
            by_images = by_weights and leaves_int16(
                operator.packed, highest_inputs(operator, found.source)
            )
        layers.append(
            LayerArithmetic(names[operator.value], outputs, wrong, worst, by_weights, by_images)
        )
    probe = probe_engine(engine)
    return Saturation(engine, probe, tuple(layers), len(images), saturates_elsewhere, error)


def compare(found: Traffic) -> tuple[int, int, float]:
    """Outputs of a layer, how many are more than a step off, and by how many steps at most."""
    with torch.inference_mode():
        difference = found.output.int_repr().double() - exact_output(found.layer, found.source)
    size = difference.abs()
    return size.numel(), int((size > STEP).sum()), float(size.max())
