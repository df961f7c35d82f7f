"""What building an int8 artifact begins with in every runtime but torch's engines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ptqbench.backends.artifact import ArtifactInfo
from ptqbench.backends.cpu import instruction_set
from ptqbench.core.phases import Phases
from ptqbench.errors import UserError
from ptqbench.quantization.build import SimulatedQuantization, simulate_model
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.recipes import CompletedRecipe, Recipe

if TYPE_CHECKING:
    from ptqbench.backends.backend import Backend


def simulate_for(
    backend: Backend,
    model: nn.Module,
    recipe: Recipe | CompletedRecipe,
    calibration: Iterable[Tensor],
    phases: Phases,
    calibrations: CalibrationCache | None,
) -> tuple[SimulatedQuantization, ArtifactInfo]:
    """Quantize a float32 model for a backend, up to where its format begins.

    Args:
        backend: What will execute the artifact.
        model: See ``backend.Backend.build``, as all others.
        recipe: How to quantize it.
        calibration: Batches ``N×C×H×W`` float32.
        phases: Where time is counted.
        calibrations: Of this model and these images.

    Returns:
        The simulation of the int8 model, and what the artifact shall record.

    Raises:
        UserError: The backend cannot be used here, or as ``simulate_model`` raises it.
    """
    declared = recipe.recipe if isinstance(recipe, CompletedRecipe) else recipe
    if reason := backend.refusal(declared):
        raise UserError(f"The backend {backend.name} cannot be used here: {reason}.")
    quantized = simulate_model(
        model,
        recipe,
        calibration,
        pairing=backend.pairing if backend.saturates() else None,
        phases=phases,
        calibrations=calibrations,
    )
    info = ArtifactInfo(
        precision="int8",
        backend=backend.name,
        engine=backend.engine,
        model=declared.model,
        recipe_hash=declared.hash,
        flow=quantized.recipe.flow,
        instruction_set=instruction_set(),
        calibration_images=quantized.calibration_images,
        build=quantized.record.to_dict(),
    )
    return quantized, info
