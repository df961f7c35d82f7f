"""Write the int8 and the float32 artifact of a model for ExecuTorch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.executorch.et_export import export_program, with_integers
from ptqbench.backends.executorch.et_save import opened, save
from ptqbench.backends.executorch.et_session import EtModel
from ptqbench.backends.runtime_build import simulate_for
from ptqbench.core.phases import Phases
from ptqbench.core.step_errors import step
from ptqbench.errors import UserError
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.recipes import CompletedRecipe, Recipe

if TYPE_CHECKING:
    from ptqbench.backends.executorch.et_backend import ExecuTorchBackend

_ADVICE = (
    "The model is exported by torch.export and ExecuTorch. Write {module} with operators that both "
    "know, keep it in float32 (keep_float in the recipe), or use another backend."
)
_LARGER = 32
"""Pixels by which the images are larger that show whether a file takes other sizes."""
_TOLERANCE = 0.1
"""Norm of the difference of logits relative to that of the logits: what rounding the other way may
change in a simulated model. A wrong shape gives an error or other logits altogether."""


def build_int8(
    backend: ExecuTorchBackend,
    model: nn.Module,
    recipe: Recipe | CompletedRecipe,
    calibration: Iterable[Tensor],
    path: Path,
    phases: Phases | None = None,
    calibrations: CalibrationCache | None = None,
) -> Artifact:
    """Quantize a float32 model and save a program; see ``backend.Backend.build``."""
    phases = phases or Phases()
    quantized, info = simulate_for(backend, model, recipe, calibration, phases, calibrations)
    simulation = quantized.simulation
    _check_dimensions(simulation.module, info.model)
    with (
        phases.measure("lower and save"),
        step(f"Export of {info.model} for {backend.name}", _ADVICE, simulation.module),
    ):
        signed = with_integers(simulation.module, simulation.weights)
        content = exported(signed, quantized.example)
        return save(content, path, info)


def _check_dimensions(module: nn.Module, name: str) -> None:
    """Refuse layers that could not be told in the file.

    Raises:
        UserError: There are one-dimensional convolutions.
    """
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            raise UserError(
                f"{path} of {name} is one-dimensional, and XNNPACK executes such convolutions as "
                "two-dimensional ones, which the gates could not tell in the file. Use another "
                "backend."
            )


def build_float(
    backend: ExecuTorchBackend, model: nn.Module, name: str, example: Tensor, path: Path
) -> Artifact:
    """Export the float32 model; see ``backend.Backend.build_float``."""
    with step(f"Export of the float32 {name} for {backend.name}", _ADVICE, model):
        content = exported(model.eval(), example[:1])
        return save(content, path, ArtifactInfo("float32", backend.name, backend.engine, name))


def exported(module: nn.Module, example: Tensor) -> bytes:
    """Export a module; its sizes are open if the file then computes what the module does.

    Args:
        module: Float32, or with integers.
        example: One input, ``1×C×H×W`` float32.
    """
    fixed = export_program(module, example)
    larger = _larger(module, example)
    content = None if larger is None else opened(fixed)
    if content is not None and _agree(module, content, [example, larger]):
        return content
    return fixed


def _larger(module: nn.Module, example: Tensor) -> Tensor | None:
    """An image of another size, if the module takes it and gives as many logits."""
    images = torch.nn.functional.pad(example, (0, _LARGER, 0, _LARGER), mode="replicate")
    try:
        with torch.inference_mode():
            return images if module(images).shape == module(example).shape else None
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
        return None


def _agree(module: nn.Module, content: bytes, inputs: Iterable[Tensor | None]) -> bool:
    """Whether a program computes what the module does."""
    try:
        loaded = EtModel(content)
    except RuntimeError:
        return False
    for images in inputs:
        assert images is not None
        with torch.inference_mode():
            expected = module(images)
        try:
            logits = loaded(images)
        except RuntimeError:
            return False
        if logits.shape != expected.shape:
            return False
        if float((logits - expected).norm()) > _TOLERANCE * float(expected.norm()):
            return False
    return True
