"""An int8 file as it was handed over, and what a report must tell about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ptqbench.backends.artifact import ArtifactInfo
from ptqbench.backends.foreign_artifact import ForeignArtifact
from ptqbench.backends.registry import recognize
from ptqbench.errors import UserError
from ptqbench.evaluation.result import CaseResult
from ptqbench.measurement.cross_engine import UnderEngine, better_elsewhere


@dataclass(frozen=True)
class Given:
    """An int8 file as it was handed over.

    Attributes:
        path: Undamaged, of a runtime that a backend executes.
        info: What it says about itself, if ptqbench made it; None if it was made elsewhere.
    """

    path: Path
    info: ArtifactInfo | None = None

    @property
    def maker(self) -> str:
        """Who made it, as the report says it."""
        return "elsewhere" if self.info is None else "ptqbench"

    @property
    def backend(self) -> str | None:
        """The backend that it records."""
        return None if self.info is None else self.info.backend


def open_given(path: str | Path) -> Given:
    """Look at a file without running any of it.

    Raises:
        UserError: It is missing, damaged or of no known kind.
    """
    path = Path(path)
    return Given(path, recognize(path))


def check_model(given: Given, model: str) -> None:
    """Check that a file that knows its architecture is of the one that is named.

    Raises:
        UserError: It is of another.
    """
    if given.info is not None and given.info.model != model:
        raise UserError(
            f"{given.path} was made from {given.info.model}, but the model is {model}. Pass "
            "the model that the artifact was made from."
        )


def told(
    case: CaseResult,
    given: Given,
    *,
    keep_float: Sequence[str] = (),
    engines: Sequence[UnderEngine] = (),
    images: int = 0,
    file: ForeignArtifact | None = None,
) -> CaseResult:
    """The case with what a reader must know about its file.

    Args:
        case: What was found.
        given: The file.
        keep_float: Modules that were meant to stay float32.
        engines: What the file does under each engine; that of the case comes first.
        images: Number of images that this was seen on.
        file: How it runs, if it does.
    """
    info = given.info
    noted = case.facts.get("notes")
    notes = [*(noted if isinstance(noted, tuple | list) else ())]
    notes += _notes(given, str(case.facts["engine"]), engines, images)
    if file is not None and file.behaviour.one_at_a_time:
        notes.append(f"{given.path.name} only takes one image at a time, and got them so.")
    if file is not None and file.behaviour.probabilities:
        notes.append(
            f"{given.path.name} gives probabilities and the float32 model logits: the predicted "
            "classes can be compared, but the SQNR says nothing."
        )
    facts: dict[str, object] = {
        **case.facts,
        "artifact": str(given.path),
        "artifact_sha256": hashlib.sha256(given.path.read_bytes()).hexdigest(),
        "made_by": given.maker,
        "recorded_engine": None if info is None else info.engine,
        "keep_float": tuple(keep_float),
        "engines": [asdict(engine) for engine in engines],
        "notes": tuple(notes),
    }
    if info is None:
        facts |= {"flow": None, "calibration_images": None}
    return replace(case, recipe="" if info is None else info.recipe_hash, facts=facts)


def _notes(given: Given, engine: str, engines: Sequence[UnderEngine], images: int) -> list[str]:
    notes = []
    if given.info is None:
        notes.append(
            f"{given.path.name} was made elsewhere and is judged under {engine}. It does not "
            "record the engine that it is for, nor the images that it was calibrated with, "
            "which may be among those of the evaluation."
        )
        same = [other.engine for other in engines[1:] if other.same]
        differing = [other.engine for other in engines[1:] if not other.same]
        if same and differing:
            notes.append(
                f"It gives the same logits under {', '.join(same)}, but not under "
                f"{', '.join(differing)}."
            )
    if (better := better_elsewhere(engines)) is not None:
        notes.append(
            f"On {images} images its logits carry {engines[0].sqnr_db:.1f} dB under {engine}, but "
            f"{better.sqnr_db:.1f} dB under {better.engine}: was it quantized for that one?"
        )
    return notes
