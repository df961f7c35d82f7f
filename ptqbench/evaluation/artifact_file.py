"""An int8 file that the user hands over, and its notes in the report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS, Recognition, backend_for, recognize
from ptqbench.backends.foreign_artifact import Behaviour
from ptqbench.errors import UserError
from ptqbench.evaluation.result import CaseResult
from ptqbench.measurement.cross_engine import UnderEngine, better_elsewhere
from ptqbench.recipes import Recipe


@dataclass(frozen=True)
class ArtifactFile:
    """An int8 file that the user hands over.

    Attributes:
        path: Undamaged, of a runtime that a backend executes.
        recognition: Its runtime, and what it records about itself.
    """

    path: Path
    recognition: Recognition

    @property
    def info(self) -> ArtifactInfo | None:
        """What it records about itself; None for a foreign artifact."""
        return self.recognition.info

    @property
    def backend(self) -> str | None:
        """The backend that it records, or the only one of its runtime."""
        if self.info is not None:
            return self.info.backend
        fitting = [b.name for b in BACKENDS if b.runtime == self.recognition.runtime]
        return fitting[0] if len(fitting) == 1 else None

    def choose_backend(self, backend: str | None, recipe: Recipe) -> Backend:
        """Return the backend that it is judged on.

        Args:
            backend: The one that the user names; by default that which the file records, else
                the one that the recipe recommends, or another of the file's runtime.
            recipe: Of the model.

        Raises:
            UserError: The backend is unknown, or executes files of another kind.
        """
        chosen = BACKENDS.get(backend or backend_for(self.recognition, recipe))
        suffixes = {b.suffix for b in BACKENDS if b.runtime == self.recognition.runtime}
        if chosen.suffix not in suffixes:
            fitting = [b.name for b in BACKENDS if b.suffix in suffixes]
            raise UserError(
                f"{self.path} is not a file that {chosen.name} executes. Name a backend that "
                f"does: {', '.join(fitting)}."
            )
        return chosen

    def check_model(self, model: str) -> None:
        """Check that the file is an int8 artifact of a model, as far as it records that.

        Raises:
            UserError: It is of another model, or float32.
        """
        if self.info is None:
            return
        if self.info.precision != "int8":
            raise UserError(
                f"{self.path} is a {self.info.precision} artifact, so there is nothing to judge. "
                "Pass the int8 one."
            )
        if self.info.model != model:
            raise UserError(
                f"{self.path} was built from {self.info.model}, but the model is {model}. Pass "
                "the model that the artifact was built from."
            )


def open_artifact_file(artifact: str | Path | Artifact) -> ArtifactFile:
    """Look at a file without running any of it.

    Raises:
        UserError: It is missing, damaged or of no known kind.
    """
    path = artifact.path if isinstance(artifact, Artifact) else Path(artifact)
    return ArtifactFile(path, recognize(path))


def annotate(
    case: CaseResult,
    file: ArtifactFile,
    *,
    keep_float: Sequence[str] = (),
    engines: Sequence[UnderEngine] = (),
    images: int = 0,
    behaviour: Behaviour | None = None,
) -> CaseResult:
    """Add what a reader must know about the file to its case.

    Args:
        case: The result.
        file: The file.
        keep_float: Modules that were meant to stay float32.
        engines: What the file gives under each engine; that of the case comes first.
        images: Number of images that this was seen on.
        behaviour: How it takes batches and what it gives, if it runs.
    """
    info = file.info
    notes = case.facts.get("notes")
    facts: dict[str, object] = {
        **case.facts,
        "artifact": str(file.path),
        "artifact_sha256": hashlib.sha256(file.path.read_bytes()).hexdigest(),
        "made_by": "elsewhere" if info is None else "ptqbench",
        "recorded_engine": None if info is None else info.engine,
        "keep_float": tuple(keep_float),
        "engines": [asdict(engine) for engine in engines],
        "notes": (
            *(notes if isinstance(notes, tuple | list) else ()),
            *_engine_notes(file, str(case.facts["engine"]), engines, images),
            *_behaviour_notes(file, behaviour),
        ),
    }
    if info is None:
        facts |= {"flow": None, "calibration_images": None}
    return replace(case, recipe="" if info is None else info.recipe_hash, facts=facts)


def _behaviour_notes(file: ArtifactFile, behaviour: Behaviour | None) -> list[str]:
    notes = []
    if behaviour is not None and behaviour.one_at_a_time:
        notes.append(f"{file.path.name} takes one image at a time only, and was run that way.")
    if behaviour is not None and behaviour.probabilities:
        notes.append(
            f"{file.path.name} gives probabilities, so it is compared with those of the float32 "
            "model: the SQNR is that of probabilities instead of logits."
        )
    return notes


def _engine_notes(
    file: ArtifactFile, engine: str, engines: Sequence[UnderEngine], images: int
) -> list[str]:
    notes = []
    if file.info is None:
        notes.append(
            f"{file.path.name} is a foreign artifact, judged under {engine}. It records neither "
            "the engine that it is for nor the images that it was calibrated with, which may be "
            "among those of the evaluation."
        )
        same = [other.engine for other in engines[1:] if other.same]
        different = [other.engine for other in engines[1:] if not other.same]
        if same and different:
            notes.append(
                f"It gives the same logits under {', '.join(same)}, but not under "
                f"{', '.join(different)}."
            )
    if (better := better_elsewhere(engines)) is not None:
        notes.append(
            f"On {images} images its logits carry {engines[0].sqnr_db:.1f} dB under {engine}, but "
            f"{better.sqnr_db:.1f} dB under {better.engine}: was it quantized for that one?"
        )
    return notes
