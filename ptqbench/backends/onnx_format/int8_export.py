"""Turn a model into a QDQ or a float32 ONNX model, for the runtimes that read those."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.onnx_format.integer_weights import write_integers
from ptqbench.backends.onnx_format.onnx_export import export
from ptqbench.core.phases import Phases
from ptqbench.core.step_errors import step
from ptqbench.errors import UserError
from ptqbench.quantization.build import simulate_model
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.recipes import CompletedRecipe, Recipe

if TYPE_CHECKING:
    import onnx

    from ptqbench.backends.backend import Backend


@dataclass(frozen=True)
class OnnxReader:
    """How a runtime takes ONNX models.

    Attributes:
        backend: Of the runtime.
        execute: Runs a model on images ``N×C×H×W``, to compare it with its module ``N×K``.
        save: Writes a model with what it shall record as a file of the runtime.
        advice: What to do about models that cannot be exported; ``{module}`` is named in it.
    """

    backend: Backend
    execute: Callable[[onnx.ModelProto, Tensor], Tensor]
    save: Callable[[onnx.ModelProto, Path, ArtifactInfo], Artifact]
    advice: str


def export_int8(
    reader: OnnxReader,
    model: nn.Module,
    recipe: Recipe | CompletedRecipe,
    calibration: Iterable[Tensor],
    path: Path,
    phases: Phases | None = None,
    calibrations: CalibrationCache | None = None,
) -> Artifact:
    """Quantize a float32 model and save a QDQ model; see ``backend.Backend.build``."""
    backend = reader.backend
    declared = recipe.recipe if isinstance(recipe, CompletedRecipe) else recipe
    if reason := backend.refusal(declared):
        raise UserError(f"The backend {backend.name} cannot be used here: {reason}.")
    phases = phases or Phases()
    quantized = simulate_model(
        model,
        recipe,
        calibration,
        pairing=backend.pairing if backend.saturates() else None,
        phases=phases,
        calibrations=calibrations,
    )
    module = quantized.simulation.module
    with (
        phases.measure("lower and save"),
        step(f"Export of {declared.model} for {backend.name}", reader.advice, module),
    ):
        exported = export(module, quantized.example, reader.execute)
        write_integers(exported, quantized.simulation.weights)
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
        return reader.save(exported, path, info)


def export_float(
    reader: OnnxReader, model: nn.Module, name: str, example: Tensor, path: Path
) -> Artifact:
    """Export the float32 model; see ``backend.Backend.build_float``."""
    backend = reader.backend
    with step(f"Export of the float32 {name} for {backend.name}", reader.advice, model):
        exported = export(model.eval(), example[:1], reader.execute)
        return reader.save(
            exported, path, ArtifactInfo("float32", backend.name, backend.engine, name)
        )


def versions(runtime: str) -> str:
    """What an artifact records as its runtime.

    Args:
        runtime: Name and version of what executes it.
    """
    return f"{runtime}, torch {torch.__version__}"
