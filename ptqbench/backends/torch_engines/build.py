"""Quantize a float32 model with torch.ao and save it as frozen TorchScript."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.torch_engines.torchscript import engine_set, save_script, trace_and_freeze
from ptqbench.core.phases import Phases
from ptqbench.errors import UserError
from ptqbench.quantization import eager, fx
from ptqbench.quantization.build_record import inspect_build
from ptqbench.quantization.calibration import Calibrated, CalibrationCache, calibrate
from ptqbench.quantization.completion import complete_recipe, unfused
from ptqbench.recipes import Recipe

if TYPE_CHECKING:
    from ptqbench.backends.torch_engines.engine import TorchBackend

_FLOWS = {"fx": fx, "eager": eager}
_INSPECTED = 8
"""Images on which fused and unfused float are compared."""


def build_int8(
    backend: TorchBackend,
    model: nn.Module,
    recipe: Recipe,
    calibration: Iterable[Tensor],
    path: Path,
    phases: Phases | None = None,
    calibrations: CalibrationCache | None = None,
) -> Artifact:
    """Quantize a float32 model and save the int8 artifact; see ``backend.Backend.build``."""
    if reason := backend.refusal(recipe):
        raise UserError(f"The backend {backend.name} cannot be used here: {reason}.")
    phases = phases or Phases()
    batches = iter(calibration)
    first = next(batches, None)
    if first is None:
        raise UserError("There are no calibration images: quantization needs at least one.")
    recipe = complete_recipe(recipe, model, first[:1])
    images = _chain(first, batches)
    saturates = backend.saturates()
    with engine_set(backend.engine):

        def make() -> Calibrated:
            return _calibrated(model, recipe, images, first, saturates, phases)

        if calibrations is None:
            calibrated = make()
        else:
            calibrated = calibrations.get_or_create(recipe, saturates, make)
        with phases.measure("convert"):
            converted = _FLOWS[recipe.flow].convert(calibrated.module)
            if recipe.flow == "eager":
                eager.check_runs(converted, first[:1])
        with phases.measure("lower and save"):
            script = trace_and_freeze(converted, first[:1])
            info = ArtifactInfo(
                precision="int8",
                backend=backend.name,
                engine=backend.engine,
                model=recipe.model,
                recipe_hash=recipe.hash,
                flow=recipe.flow,
                instruction_set=instruction_set(),
                calibration_images=calibrated.images,
                build=calibrated.record.to_dict(),
            )
            return save_script(script, path, info)


def _calibrated(
    model: nn.Module,
    recipe: Recipe,
    images: Iterable[Tensor],
    first: Tensor,
    saturates: bool,
    phases: Phases,
) -> Calibrated:
    """Fuse, observe and calibrate a copy of the model; ``first`` is the first batch."""
    with phases.measure("fuse and observe"):
        prepared = _FLOWS[recipe.flow].prepare(model, recipe, first[:1], saturates=saturates)
    seen = calibrate(prepared, images, phases)
    with phases.measure("inspect the build"):
        record = inspect_build(
            model,
            prepared,
            recipe.groups,
            first[:_INSPECTED],
            unfused=unfused(model, recipe, first[:1]),
            promised=recipe.fused_groups,
            phases=phases,
        )
    return Calibrated(prepared, seen, record)


def _chain(first: Tensor, rest: Iterable[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest
