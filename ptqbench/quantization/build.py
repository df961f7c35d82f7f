"""Quantize a model: fuse, observe, calibrate, convert."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

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
        calibrated = create()
    else:
        calibrated = calibrations.get_or_create(
            completed, saturates and declared.spare_bit == "activations", create
        )
    with phases.measure("convert"), _step("Conversion", completed, calibrated.module):
        set_weight_grids(calibrated.module, declared, pairing)
        if declared.bias_correction:
            correct_biases(calibrated.module, calibrated.means)
        converted = _FLOWS[completed.flow].convert(calibrated.module)
        if completed.flow == "eager":
            eager.check_runs(converted, example)
    return QuantizedModule(converted, completed, example, calibrated.images, calibrated.record)


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
