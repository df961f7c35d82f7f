"""Turn a model into a QDQ or a float32 ONNX model, for the runtimes that read those."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.lone_run import RuntimeDiesError, run_alone
from ptqbench.backends.onnx_format.integer_weights import write_integers
from ptqbench.backends.onnx_format.onnx_export import export
from ptqbench.backends.runtime_build import simulate_for
from ptqbench.core.phases import Phases
from ptqbench.core.step_errors import step
from ptqbench.errors import UserError
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
        literal: What runs a model for `lone_run.run_alone`, to compare it with its module.
        shipped: What runs a saved file likewise, in every form that is used later.
        save: Writes a model with what it shall record as a file of the runtime.
        advice: What to do about models that cannot be exported; ``{module}`` is named in it.
    """

    backend: Backend
    literal: str
    shipped: str
    save: Callable[[onnx.ModelProto, Path, ArtifactInfo], Artifact]
    advice: str

    def execute(self, model: onnx.ModelProto, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run a model in another process on images ``N×C×H×W``, each to logits ``N×K``."""
        with tempfile.TemporaryDirectory(prefix="ptqbench-") as folder:
            path = Path(folder, "model.onnx")
            path.write_bytes(model.SerializeToString())
            arrays = [images.numpy() for images in inputs]
            outputs = run_alone(self.literal, path, arrays, torch.get_num_threads())
        return [torch.from_numpy(output) for output in outputs]

    def try_out(self, artifact: Artifact, example: Tensor) -> Artifact:
        """Load and run a saved file in another process, before this one does.

        Raises:
            UserError: It crashes or hangs that process, or cannot be loaded.
        """
        try:
            run_alone(self.shipped, artifact.path, [example.numpy()], torch.get_num_threads())
        except (RuntimeDiesError, RuntimeError) as error:
            raise UserError(
                f"{self.backend.label} cannot run the {artifact.info.precision} file of "
                f"{artifact.info.model} that was built for it: {error}. Use another backend, or "
                f"another version of {self.backend.label}."
            ) from error
        return artifact


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
    phases = phases or Phases()
    quantized, info = simulate_for(backend, model, recipe, calibration, phases, calibrations)
    module = quantized.simulation.module
    with (
        phases.measure("lower and save"),
        step(f"Export of {info.model} for {backend.name}", reader.advice, module),
    ):
        exported = export(module, quantized.example, reader.execute)
        write_integers(exported, quantized.simulation.weights)
        return reader.try_out(reader.save(exported, path, info), quantized.example)


def export_float(
    reader: OnnxReader, model: nn.Module, name: str, example: Tensor, path: Path
) -> Artifact:
    """Export the float32 model; see ``backend.Backend.build_float``."""
    backend = reader.backend
    with step(f"Export of the float32 {name} for {backend.name}", reader.advice, model):
        exported = export(model.eval(), example[:1], reader.execute)
        info = ArtifactInfo("float32", backend.name, backend.engine, name)
        return reader.try_out(reader.save(exported, path, info), example[:1])


def versions(runtime: str) -> str:
    """What an artifact records as its runtime.

    Args:
        runtime: Name and version of what executes it.
    """
    return f"{runtime}, torch {torch.__version__}"
