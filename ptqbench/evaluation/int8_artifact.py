"""Building a case's int8 artifact, and what is known about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.evaluation.subject import Subject
from ptqbench.measurement.artifact_inspection import ArtifactProvenance
from ptqbench.measurement.conversion import Promise
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.quantization.calibration import CalibrationCache
from ptqbench.recipes import CompletedRecipe


def build_int8(
    subject: Subject,
    backend: Backend,
    phases: Phases,
    path: Path | None = None,
    calibrations: CalibrationCache | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Quantize the subject for a backend.

    Args:
        subject: The float32 model.
        backend: What the artifact is for.
        phases: Where time is counted.
        path: Where it is written; by default in the subject's folder.
        calibrations: Shared by the subject's backends, so that those which can calibrate once.
        progress: Progress callback; counts calibration images.

    Raises:
        UserError: The backend is not available or the recipe does not fit.
    """
    path = path or subject.int8_path(backend)
    batches = _counted(subject.calibration_batches(), subject.calibration_count, progress)
    model, recipe = subject.quantizable(), subject.complete()
    return backend.build(model, recipe, batches, path, phases, calibrations)


def _counted(batches: Iterable[Tensor], total: int, progress: Progress) -> Iterator[Tensor]:
    """Pass batches on, and report those that have been used when the next one is asked for."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress("calibrate", done, total)


def build_provenance(subject: Subject, backend: Backend, artifact: Artifact) -> ArtifactProvenance:
    """Return what is known about an artifact that ptqbench has just built."""
    info = artifact.info
    return ArtifactProvenance(
        path=artifact.path,
        backend=backend,
        recorded=BACKENDS.get(info.backend),
        record=None if info.build is None else BuildRecord.from_dict(info.build),
        promise=promise_of(subject.complete()),
    )


def promise_of(recipe: CompletedRecipe) -> Promise:
    """Return what the int8 artifact of a recipe must contain."""
    return Promise(recipe.int8_modules, recipe.keep_float, recipe.recipe.per_channel)
