"""What to ship: every int8 file that no gate failed and float32 in every runtime, compared."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.atomic import atomic_path
from ptqbench.core.progress import Progress, silent
from ptqbench.errors import UserError
from ptqbench.evaluation.float_rivals import FloatRivals
from ptqbench.evaluation.result import CaseResult
from ptqbench.evaluation.subject import Subject
from ptqbench.gates.verdict import Verdict
from ptqbench.measurement.fastest import race, runnable

INT8, FLOAT32 = "int8", "float32"
SAME = 0.02
"""Candidates whose times differ by less than this share are equally fast; the smaller file wins."""
_ROUNDS = 15


@dataclass(frozen=True)
class Candidate:
    """A file that could ship.

    Attributes:
        precision: ``int8`` or ``float32``.
        name: Backend of an int8 file, runtime of a float32 file.
        artifact: The file, or files.
        size_bytes: Of everything that ships.
        ms: Time of a call in ms, all candidates called in turn; None: not timed.
        case: What the gates say of an int8 file.
    """

    precision: str
    name: str
    artifact: Artifact
    size_bytes: int
    ms: float | None = None
    case: CaseResult | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """The gates that an int8 file fails, which removes it."""
        gates = () if self.case is None else self.case.gates
        return tuple(gate.name for gate in gates if gate.verdict is Verdict.FAIL)

    @property
    def doubts(self) -> tuple[str, ...]:
        """The gates that are inconclusive or unverified."""
        gates = () if self.case is None else self.case.gates
        doubtful = (Verdict.INCONCLUSIVE, Verdict.UNVERIFIED)
        return tuple(f"{gate.name} ({gate.verdict})" for gate in gates if gate.verdict in doubtful)

    @property
    def label(self) -> str:
        """What a report calls it."""
        return f"{self.precision} in {self.name}"

    def copy_to(self, folder: Path) -> Path:
        """Copy everything that ships to a folder, each file whole or not at all.

        Returns:
            The copy of the file that is loaded.

        Raises:
            UserError: The folder cannot be written to.
        """
        try:
            for path in self.artifact.files:
                with atomic_path(folder / path.name) as temporary:
                    shutil.copyfile(path, temporary)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{folder} cannot be written to: {reason}.") from None
        return folder / self.artifact.path.name


@dataclass(frozen=True)
class Recommendation:
    """What to ship on this CPU, and what it was compared with.

    Attributes:
        model: Registered name.
        candidates: All files, the fastest first; those that were not timed last.
        choice: The file to ship.
        missing: Why a backend was not tried, by its name.
        input_shape: Of the latency, ``N×C×H×W``.
        threads: Of all candidates.
    """

    model: str
    candidates: tuple[Candidate, ...]
    choice: Candidate
    missing: Mapping[str, str] = field(default_factory=dict)
    input_shape: tuple[int, ...] = ()
    threads: int = 1

    @property
    def fastest_float32(self) -> Candidate:
        """The fastest float32 file."""
        return next(each for each in self.candidates if each.precision == FLOAT32)


def select(candidates: Sequence[Candidate]) -> Candidate:
    """Select the file to ship: the fastest that no gate failed.

    Of several that are equally fast, the smallest.

    Args:
        candidates: At least one float32 file that was timed.

    Raises:
        ValueError: Nothing was timed.
    """
    sound = [(each.ms, each) for each in candidates if each.ms is not None and not each.failures]
    if not sound:
        raise ValueError("No candidate was timed.")
    limit = min(ms for ms, _ in sound) * (1 + SAME)
    equal = [(each.size_bytes, ms, i) for i, (ms, each) in enumerate(sound) if ms <= limit]
    return sound[min(equal)[-1]][1]


def compare(
    subject: Subject,
    rivals: FloatRivals,
    artifacts: Mapping[str, Artifact],
    cases: Mapping[str, CaseResult],
    progress: Progress = silent,
) -> Recommendation:
    """Time all files that could ship in turn, and select one.

    Args:
        subject: The model.
        rivals: Its float32 side in all runtimes.
        artifacts: The int8 files, by backend.
        cases: What the gates say of each.
        progress: Progress callback.

    Raises:
        UserError: No float32 file runs on the input for latency.
    """
    candidates: list[Candidate] = []
    models: dict[str, Model] = {}
    for name, artifact in artifacts.items():
        candidates.append(Candidate(INT8, name, artifact, artifact.size_bytes, case=cases[name]))
        if "fidelity" not in candidates[-1].failures:  # it may not even run
            models[candidates[-1].label] = artifact.load()
    references, skipped = rivals.everywhere()
    for runtime, reference in references.items():
        artifact = reference.artifact
        candidates.append(Candidate(FLOAT32, runtime, artifact, artifact.size_bytes))
        models[candidates[-1].label] = reference.fastest
    example = subject.latency.example()
    ran = runnable(models, example)
    times = race(ran, example, threads=subject.latency.threads, rounds=_ROUNDS, progress=progress)
    timed = [
        replace(each, ms=times[each.label].ms if each.label in times else None)
        for each in candidates
    ]
    if not any(each.precision == FLOAT32 and each.ms is not None for each in timed):
        shape = "×".join(map(str, example.shape))
        raise UserError(
            f"No float32 file of {subject.recipe.model} runs on the input for latency, {shape}. "
            "Set the size that the model takes with --input-size."
        )
    timed.sort(key=lambda each: (each.ms is None, each.ms or 0.0))
    return Recommendation(
        subject.recipe.model,
        tuple(timed),
        select(timed),
        {
            **{b.name: reason for b in BACKENDS if (reason := b.availability()) is not None},
            **{f"float32 in {runtime}": reason for runtime, reason in skipped.items()},
        },
        tuple(example.shape),
        subject.latency.threads,
    )
