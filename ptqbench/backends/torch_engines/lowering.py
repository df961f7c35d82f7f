"""Quantize a float32 model with torch.ao and save it as frozen TorchScript."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.torch_engines.torchscript import engine_set, save_script, trace_and_freeze
from ptqbench.core.phases import Phases
from ptqbench.core.step_errors import step
from ptqbench.errors import UserError
from ptqbench.quantization.build import quantize_model
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.recipes import CompletedRecipe, Recipe

if TYPE_CHECKING:
    from ptqbench.backends.torch_engines.engine import TorchBackend

_ADVICE = (
    "Lowering traces the int8 model with torch.jit. Keep {module} in float32 (keep_float in the "
    "recipe) or write it with tensors alone, or use another backend."
)


def build_int8(
    backend: TorchBackend,
    model: nn.Module,
    recipe: Recipe | CompletedRecipe,
    calibration: Iterable[Tensor],
    path: Path,
    phases: Phases | None = None,
    calibrations: CalibrationCache | None = None,
) -> Artifact:
    """Quantize a float32 model and save the int8 artifact; see ``backend.Backend.build``."""
    declared = recipe.recipe if isinstance(recipe, CompletedRecipe) else recipe
    if reason := backend.refusal(declared):
        raise UserError(f"The backend {backend.name} cannot be used here: {reason}.")
    phases = phases or Phases()
    with engine_set(backend.engine):
        quantized = quantize_model(
            model,
            recipe,
            calibration,
            pairing=backend.pairing if backend.saturates() else None,
            phases=phases,
            calibrations=calibrations,
        )
        with phases.measure("lower and save"):
            with step(
                f"Lowering of {declared.model} for {backend.name}", _ADVICE, quantized.module
            ):
                script = trace_and_freeze(quantized.module, quantized.example)
            info = ArtifactInfo(
                precision="int8",
                backend=backend.name,
                engine=backend.engine,
                model=quantized.recipe.model,
                recipe_hash=quantized.recipe.hash,
                flow=quantized.recipe.flow,
                instruction_set=instruction_set(),
                calibration_images=quantized.calibration_images,
                build=quantized.record.to_dict(),
            )
            return save_script(script, path, info)
