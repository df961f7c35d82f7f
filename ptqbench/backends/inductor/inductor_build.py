"""Write the int8 and the float32 artifact of a model for Inductor."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.inductor.integer_program import integer_module
from ptqbench.backends.inductor.program_export import export
from ptqbench.backends.inductor.pt2_archive import METADATA
from ptqbench.backends.runtime_build import simulate_for
from ptqbench.core.atomic import atomic_path
from ptqbench.core.phases import Phases
from ptqbench.core.step_errors import step
from ptqbench.errors import UserError
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.recipes import CompletedRecipe, Recipe

if TYPE_CHECKING:
    from ptqbench.backends.inductor.inductor_backend import InductorBackend

_ADVICE = (
    "The model is exported by torch.export. Write {module} with operators that it knows, keep it "
    "in float32 (keep_float in the recipe), or use another backend."
)


def build_int8(
    backend: InductorBackend,
    model: nn.Module,
    recipe: Recipe | CompletedRecipe,
    calibration: Iterable[Tensor],
    path: Path,
    phases: Phases | None = None,
    calibrations: CalibrationCache | None = None,
) -> Artifact:
    """Quantize a float32 model and save its program; see ``backend.Backend.build``."""
    phases = phases or Phases()
    quantized, info = simulate_for(backend, model, recipe, calibration, phases, calibrations)
    module = quantized.simulation.module
    with (
        phases.measure("lower and save"),
        step(f"Export of {info.model} for {backend.name}", _ADVICE, module),
    ):
        return save(integer_module(quantized.simulation), quantized.example, path, info)


def build_float(
    backend: InductorBackend, model: nn.Module, name: str, example: Tensor, path: Path
) -> Artifact:
    """Export the float32 model; see ``backend.Backend.build_float``."""
    info = ArtifactInfo("float32", backend.name, backend.engine, name)
    with step(f"Export of the float32 {name} for {backend.name}", _ADVICE, model):
        return save(model.eval(), example[:1], path, info)


def save(module: nn.Module, example: Tensor, path: Path, info: ArtifactInfo) -> Artifact:
    """Export a module and write its program whole or not at all.

    Args:
        module: In evaluation mode.
        example: One input, ``1×C×H×W`` float32.
        path: The file.
        info: What it shall record; its runtime is filled in.

    Raises:
        UserError: The folder cannot be written to, or the disk is full.
        Exception: Whatever torch raises for a module that it cannot export.
    """
    info = dataclasses.replace(info, runtime=f"torch {torch.__version__}")
    content = export(module, example, {METADATA: json.dumps(dataclasses.asdict(info))})
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The artifact {path} cannot be written: {reason}.") from error
    return Artifact(path, info)
