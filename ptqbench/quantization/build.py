"""Quantize a model: fuse, observe, calibrate, convert."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ptqbench.core.phases import Phases
from ptqbench.core.step_errors import step
from ptqbench.errors import UserError
from ptqbench.quantization import eager, fx
from ptqbench.quantization.bias_correction import correct_biases, mean_inputs
from ptqbench.quantization.build_record import BuildRecord, inspect_build
from ptqbench.quantization.calibration import Calibrated, CalibrationCache, calibrate
from ptqbench.quantization.canonical import quantizable_model
from ptqbench.quantization.classifier_check import check_classifier, check_statistics
from ptqbench.quantization.completion import complete_recipe, unfused
from ptqbench.quantization.pairing import Pairing
from ptqbench.quantization.qconfig import set_weight_grids
from ptqbench.quantization.simulation import SimulatedModel, simulate
from ptqbench.recipes import CompletedRecipe, Recipe

_FLOWS = {"fx": fx, "eager": eager}
_ADVICE = (
    "Check the weights and inputs of {module} for values that are not numbers; else keep it in "
    "float32 (keep_float in the recipe), or use another backend or flow."
)
_INSPECTED = 8
"""Images on which fused and unfused float are compared."""


@dataclass(frozen=True)
class QuantizedModule:
    """An int8 module, not lowered yet.

    Attributes:
        module: Int8, its weights packed for the engine that was set.
        recipe: The recipe that it was quantized with.
        example: One input, ``1×C×H×W`` float32.
        calibration_images: Number of calibration images.
        record: What the build recorded about fusion and observers.
    """

    module: nn.Module
    recipe: CompletedRecipe
    example: Tensor
    calibration_images: int
    record: BuildRecord


def quantize_model(
    model: nn.Module,
    recipe: Recipe | CompletedRecipe,
    calibration: Iterable[Tensor],
    *,
    pairing: Pairing | None,
    phases: Phases,
    calibrations: CalibrationCache | None = None,
) -> QuantizedModule:
    """Quantize a copy of a float32 model for the quantized engine that is set.

    Args:
        model: Float32, evaluation mode, canonical or made so; it is not changed.
        recipe: How to quantize it.
        calibration: Batches ``N×C×H×W`` float32, streamed.
        pairing: Which u8×s8 products kernels of the engine add in 16 bits here; None: none.
        phases: Where time is counted.
        calibrations: Cache for this model and these images: backends that share it calibrate once.

    Raises:
        UserError: There are no calibration images, or the recipe does not fit the model.
    """
    ready = _ready(model, recipe, calibration, pairing, phases, calibrations)
    completed, calibrated = ready.recipe, ready.calibrated
    with phases.measure("convert"), _step("Conversion", completed, calibrated.module):
        _round_weights(ready, pairing)
        converted = _FLOWS[completed.flow].convert(calibrated.module)
        if completed.flow == "eager":
            eager.check_runs(converted, ready.example)
    return QuantizedModule(
        converted, completed, ready.example, calibrated.images, calibrated.record
    )


@dataclass(frozen=True)
class SimulatedQuantization:
    """A simulation of int8 in plain layers, for runtimes other than torch's engines.

    Attributes:
        simulation: Plain layers with rounded weights, and activations that are rounded.
        recipe: The recipe that it was quantized with, in graph mode.
        example: One input, ``1×C×H×W`` float32.
        calibration_images: Number of calibration images.
        record: What the build recorded about fusion and observers.
    """

    simulation: SimulatedModel
    recipe: CompletedRecipe
    example: Tensor
    calibration_images: int
    record: BuildRecord


def simulate_model(
    model: nn.Module,
    recipe: Recipe | CompletedRecipe,
    calibration: Iterable[Tensor],
    *,
    pairing: Pairing | None,
    phases: Phases,
    calibrations: CalibrationCache | None = None,
) -> SimulatedQuantization:
    """Quantize a copy of a float32 model, for a runtime that has its own int8 operators.

    Fusion, ranges, weights, biases and what stays float32 are those of `quantize_model`, always in
    graph mode: the eager flow exists for torch's own modules.

    Args:
        model: See `quantize_model`, as all others.
        recipe: How to quantize it.
        calibration: Batches ``N×C×H×W`` float32, streamed.
        pairing: Which u8×s8 products the runtime's kernels add in 16 bits here; None: none.
        phases: Where time is counted.
        calibrations: Cache for this model and these images.

    Raises:
        UserError: There are no calibration images, or the recipe does not fit the model.
    """
    declared = recipe.recipe if isinstance(recipe, CompletedRecipe) else recipe
    in_graph_mode = isinstance(recipe, CompletedRecipe) and recipe.flow == "fx"
    graph_mode = recipe if in_graph_mode else replace(declared, flow="fx")
    ready = _ready(model, graph_mode, calibration, pairing, phases, calibrations)
    completed, calibrated = ready.recipe, ready.calibrated
    if completed.flow == "eager":
        raise UserError(
            f"{declared.model} has QuantStubs and so is written for torch's eager mode; other "
            "runtimes need a model without them. Take the stubs out of it."
        )
    with phases.measure("convert"), _step("Conversion", completed, calibrated.module):
        _round_weights(ready, pairing)
        simulation = simulate(calibrated.module)
    return SimulatedQuantization(
        simulation, completed, ready.example, calibrated.images, calibrated.record
    )


@dataclass(frozen=True)
class _Ready:
    """A calibrated model that waits for its weights to be rounded."""

    calibrated: Calibrated
    recipe: CompletedRecipe
    example: Tensor


def _ready(
    model: nn.Module,
    recipe: Recipe | CompletedRecipe,
    calibration: Iterable[Tensor],
    pairing: Pairing | None,
    phases: Phases,
    calibrations: CalibrationCache | None,
) -> _Ready:
    """Fuse, observe and calibrate a copy of the model, or take what the cache has."""
    batches = iter(calibration)
    first = next(batches, None)
    if first is None:
        raise UserError("There are no calibration images: quantization needs at least one.")
    example = first[:1]
    check_classifier(model, example)
    check_statistics(model)
    declared = recipe.recipe if isinstance(recipe, CompletedRecipe) else recipe
    original, model = model, quantizable_model(model, declared, first[:_INSPECTED])
    completed = complete_recipe(recipe, model, example, original=original)
    saturates = pairing is not None

    def create() -> Calibrated:
        return _calibrated(model, completed, first, batches, saturates, phases)

    if calibrations is None:
        return _Ready(create(), completed, example)
    spare = saturates and declared.spare_bit == "activations"
    return _Ready(calibrations.get_or_create(completed, spare, create), completed, example)


def _round_weights(ready: _Ready, pairing: Pairing | None) -> None:
    """Determine the grids of the weights, and take back their mean error, in place."""
    declared = ready.recipe.recipe
    set_weight_grids(ready.calibrated.module, declared, pairing)
    if declared.bias_correction:
        correct_biases(ready.calibrated.module, ready.calibrated.means)


def _calibrated(
    model: nn.Module,
    recipe: CompletedRecipe,
    first: Tensor,
    rest: Iterable[Tensor],
    saturates: bool,
    phases: Phases,
) -> Calibrated:
    """Fuse, observe and calibrate a copy of the model."""
    example = first[:1]
    with phases.measure("fuse and observe"), _step("Fusing and observing", recipe, model):
        prepared = _FLOWS[recipe.flow].prepare(model, recipe, example, saturates=saturates)
    with _step("Calibration", recipe, prepared), mean_inputs(prepared) as means:
        count = calibrate(prepared, _chain(first, rest), phases)
    with phases.measure("inspect the build"), _step("The fused model", recipe, prepared):
        record = inspect_build(
            model,
            prepared,
            recipe.groups,
            first[:_INSPECTED],
            unfused=unfused(model, recipe.model, recipe.flow, example),
            promised=recipe.recipe.fused_groups,
            phases=phases,
        )
    return Calibrated(prepared, count, record, means)


def _step(name: str, recipe: CompletedRecipe, model: nn.Module) -> AbstractContextManager[None]:
    """Name a step, and what is tried in it, in what torch's errors become."""
    tried = f"{recipe.flow} flow, engine {torch.backends.quantized.engine}"
    return step(f"{name} of {recipe.model} ({tried})", _ADVICE, model)


def _chain(first: Tensor, rest: Iterable[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest
