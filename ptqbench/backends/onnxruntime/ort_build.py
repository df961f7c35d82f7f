"""Write the int8 and the float32 artifact of a model for ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.onnx_format.integer_weights import write_integers
from ptqbench.backends.onnx_format.onnx_check import write_info
from ptqbench.backends.onnx_format.onnx_export import export
from ptqbench.backends.onnxruntime.ort_session import LITERAL, create_session
from ptqbench.core.atomic import atomic_path
from ptqbench.core.phases import Phases
from ptqbench.core.step_errors import step
from ptqbench.errors import UserError
from ptqbench.quantization.build import simulate_model
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.recipes import CompletedRecipe, Recipe

if TYPE_CHECKING:
    import onnx

    from ptqbench.backends.onnxruntime.ort_backend import OrtBackend

_ADVICE = (
    "The model is exported by torch.onnx. Write {module} with operators that it knows, keep it in "
    "float32 (keep_float in the recipe), or use another backend."
)


def build_int8(
    backend: OrtBackend,
    model: nn.Module,
    recipe: Recipe | CompletedRecipe,
    calibration: Iterable[Tensor],
    path: Path,
    phases: Phases | None = None,
    calibrations: CalibrationCache | None = None,
) -> Artifact:
    """Quantize a float32 model and save a QDQ file; see ``backend.Backend.build``."""
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
        step(f"Export of {declared.model} for {backend.name}", _ADVICE, module),
    ):
        exported = export(module, quantized.example, execute_literally)
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
        return save(exported, path, info)


def build_float(
    backend: OrtBackend, model: nn.Module, name: str, example: Tensor, path: Path
) -> Artifact:
    """Export the float32 model; see ``backend.Backend.build_float``."""
    with step(f"Export of the float32 {name} for {backend.name}", _ADVICE, model):
        exported = export(model.eval(), example[:1], execute_literally)
    return save(exported, path, ArtifactInfo("float32", backend.name, backend.engine, name))


def save(model: onnx.ModelProto, path: Path, info: ArtifactInfo) -> Artifact:
    """Write a model whole or not at all.

    Args:
        model: With all its weights inside.
        path: The file.
        info: What it shall record; its runtime is filled in.

    Raises:
        UserError: The folder cannot be written to, or the disk is full.
    """
    import onnxruntime

    info = dataclasses.replace(
        info, runtime=f"ONNX Runtime {onnxruntime.__version__}, torch {torch.__version__}"
    )
    write_info(model, info)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The artifact {path} cannot be written: {reason}.") from error
    return Artifact(path, info)


def execute_literally(model: onnx.ModelProto, images: Tensor) -> Tensor:
    """Run a model operator by operator, without any optimization.

    Args:
        model: With one input.
        images: ``N×C×H×W`` float32.

    Returns:
        Logits ``N×K`` float32.
    """
    session = create_session(
        model.SerializeToString(), torch.get_num_threads(), optimizations=LITERAL
    )
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
