"""The float32 side in every installed runtime: what a user would ship instead of int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ptqbench.backends.backend import Backend, Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.phases import Phases
from ptqbench.errors import UserError
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.subject import Subject
from ptqbench.measurement.fastest import pick_fastest
from ptqbench.settings.run_settings import FASTEST

_ROUNDS = 5


@dataclass(frozen=True)
class Opponent:
    """The float32 model that int8 has to beat.

    Attributes:
        reference: Of the runtime that executes it.
        runtime: Name of the runtime.
        times_ms: Median time of a call in ms of the fastest lowering of each runtime that was
            compared, by its name.
        skipped: Why a runtime was left out, by its name.
    """

    reference: FloatReference
    runtime: str
    times_ms: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        """Its fastest lowering."""
        return self.reference.fastest


class FloatRivals:
    """The float32 references of one subject, one for each runtime.

    Args:
        create: Makes the reference of a backend's runtime.
    """

    def __init__(self, create: Callable[[Backend], FloatReference]) -> None:
        self._create = create
        self._references: dict[str, FloatReference] = {}
        self._opponents: dict[str, Opponent] = {}

    @classmethod
    def of_subject(cls, subject: Subject, phases: Phases) -> FloatRivals:
        """Return the references of a subject, which build their files when needed."""
        return cls(lambda backend: FloatReference(subject, backend, phases))

    def of(self, backend: Backend) -> FloatReference:
        """Return the reference of a backend's runtime, the same for all its backends."""
        if backend.runtime not in self._references:
            self._references[backend.runtime] = self._create(backend)
        return self._references[backend.runtime]

    def opponent(self, backend: Backend, baseline: str) -> Opponent:
        """Return what an int8 artifact has to beat.

        Args:
            backend: Of the artifact.
            baseline: ``fastest`` of all installed runtimes, or that of the backend's ``runtime``.

        Raises:
            UserError: The backend's runtime cannot execute the float32 model.
        """
        same = self.of(backend)
        if baseline != FASTEST:
            return Opponent(same, backend.runtime)
        if backend.runtime not in self._opponents:
            self._opponents[backend.runtime] = self._compared(backend, same)
        return self._opponents[backend.runtime]

    def everywhere(self) -> tuple[dict[str, FloatReference], dict[str, str]]:
        """Return the references of all installed runtimes, their files built.

        One that is used on request alone is among them if a case of it has asked for it.

        Returns:
            References by runtime, and why a runtime was left out, by its name.
        """
        references: dict[str, FloatReference] = {}
        skipped: dict[str, str] = {}
        for backend in available_runtimes():
            if backend.on_request and backend.runtime not in self._references:
                continue
            try:
                reference = self.of(backend)
                reference.fastest  # noqa: B018 - builds and lowers the file
            except UserError as error:  # a model that it cannot export, for one
                skipped[backend.runtime] = str(error)
            else:
                references[backend.runtime] = reference
        return references, skipped

    def _compared(self, backend: Backend, same: FloatReference) -> Opponent:
        """Compare the runtimes in turn."""
        models: dict[str, Model] = {backend.runtime: same.fastest}
        references, skipped = self.everywhere()
        models |= {runtime: reference.fastest for runtime, reference in references.items()}
        if len(models) == 1:
            return Opponent(same, backend.runtime, {}, skipped)
        example = same.latency.example()
        fastest, times = pick_fastest(models, example, threads=same.latency.threads, rounds=_ROUNDS)
        return Opponent(references[fastest], fastest, times, skipped)


def available_runtimes() -> list[Backend]:
    """Return one backend of each runtime that is available here."""
    backends: dict[str, Backend] = {}
    for backend in BACKENDS:
        if backend.runtime not in backends and backend.availability() is None:
            backends[backend.runtime] = backend
    return list(backends.values())
