"""The four measurements that look inside an artifact, each made once, when it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ptqbench.backends.backend import Backend, Model
from ptqbench.backends.graph import Graph
from ptqbench.core.phases import Phases
from ptqbench.measurement.bn_folding import measure_folding
from ptqbench.measurement.conversion import Conversion, Promise, measure_conversion
from ptqbench.measurement.fidelity import Fidelity, measure_fidelity
from ptqbench.measurement.fusion import Fusion, measure_fusion
from ptqbench.measurement.layer_matching import MatchedGraph, match_graphs
from ptqbench.measurement.replay import NotStartedError, ReplayProcess
from ptqbench.measurement.saturation import (
    Saturation,
    measure_execution,
    measure_saturation,
)
from ptqbench.quantization.build_record import BuildRecord

IMAGES = 4
"""Images for fidelity, half of them for exact arithmetic: enough to see every layer used."""
INSPECTIONS = ("fusion", "conversion", "fidelity", "saturation")
"""The measurements, by their fields of ``gates.Evidence``."""


@dataclass(frozen=True)
class ArtifactProvenance:
    """An int8 file and what is known about how it was built.

    Attributes:
        path: The file.
        backend: What it is measured on.
        recorded: Backend that the file records; None if it records none.
        record: What was seen during its build; None if ptqbench did not build it.
        promise: What conversion must yield; an empty one requires what the float model has.
        float32: The float32 artifact, to compare the weights of a file with that has no
            record of its build; None: they are not compared.
    """

    path: Path
    backend: Backend
    recorded: Backend | None
    record: BuildRecord | None
    promise: Promise
    float32: Path | None = None


@dataclass(frozen=True)
class InspectionResult:
    """Measurements of the inside of an artifact, by the names in :data:`INSPECTIONS`.

    Attributes:
        measurements: Those that could be made.
        missing: Why a measurement is missing, a sentence each.
    """

    measurements: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)


class ArtifactInspection:
    """Looks inside an int8 artifact; each measurement is made once.

    Args:
        provenance: The file.
        int8: What the other measurements call.
        reference: Graph of the float model, with module paths; the same for all backends.
        images: At least :data:`IMAGES`, ``N×C×H×W`` float32.
        process: For fidelity, if one was started before; by default one is when needed.
        phases: Where forward passes are counted.
        float32: The float32 model, to tell what saturation costs; None: that is not measured.
    """

    def __init__(
        self,
        provenance: ArtifactProvenance,
        int8: Model,
        reference: Graph,
        images: Tensor,
        process: ReplayProcess | None = None,
        phases: Phases | None = None,
        float32: Model | None = None,
    ) -> None:
        self._float32 = float32
        self._provenance = provenance
        self._int8 = int8
        self._reference = reference
        self._images = images
        self._process = process
        self._phases = phases
        self._running: ReplayProcess | None = None

    def measure(
        self, names: Iterable[str] = INSPECTIONS, *, forgiving: bool = False
    ) -> InspectionResult:
        """Make measurements.

        Args:
            names: Which.
            forgiving: Whether an error is a reason why one is missing. Foreign files may
                contain anything; in artifacts of ptqbench it is a defect.
        """
        measurements: dict[str, Any] = {}
        missing: dict[str, str] = {}
        names = tuple(names)
        replaying = "fidelity" in names and "fidelity" not in self.__dict__
        with self._process or ReplayProcess() if replaying else nullcontext() as process:
            if process is not None:
                provenance = self._provenance
                target = provenance.recorded or provenance.backend
                process.start(target, provenance.path, self._images[:IMAGES])
                self._running = process
            # The other process runs the file meanwhile.
            for name in sorted(names, key="fidelity".__eq__):
                try:
                    measurements[name] = getattr(self, name)
                except NotStartedError as error:
                    missing[name] = str(error)
                except Exception as error:
                    if not forgiving:
                        raise
                    reason = f"{type(error).__name__}: {self._provenance.backend.reason(error)}"
                    missing[name] = f"The {name} could not be measured in this file ({reason})."
        return InspectionResult(measurements, missing)

    @cached_property
    def _matched(self) -> MatchedGraph:
        provenance = self._provenance
        return match_graphs(provenance.backend.layers(provenance.path), self._reference)

    @cached_property
    def fusion(self) -> Fusion:
        """Whether fusion was right."""
        provenance, matched = self._provenance, self._matched
        folding = None
        if provenance.record is None and provenance.float32 is not None:
            folded = provenance.backend.layers(provenance.float32)
            folding = measure_folding(matched.graph, folded, matched.matches)
        return measure_fusion(matched, provenance.record, folding, provenance.promise.keeps)

    @cached_property
    def conversion(self) -> Conversion:
        """Whether everything was converted that should be."""
        provenance = self._provenance
        return measure_conversion(
            self._matched, provenance.promise, provenance.record, provenance.backend.advice
        )

    @cached_property
    def fidelity(self) -> Fidelity:
        """Whether a fresh process gives the same logits.

        Raises:
            NotStartedError: No other process could be started.
        """
        return measure_fidelity(
            self._provenance.path,
            self._int8,
            self._images[:IMAGES],
            backend=self._provenance.backend,
            recorded=self._provenance.recorded,
            running=self._running,
            phases=self._phases,
        )

    @cached_property
    def saturation(self) -> Saturation:
        """Whether int8 layers compute what integers would."""
        path, backend = self._provenance.path, self._provenance.backend
        images = self._images
        saturation = measure_saturation(
            path, backend, self._reference, images[: IMAGES // 2], phases=self._phases
        )
        if self._float32 is None or not any(layer.by_weights for layer in saturation.layers):
            return saturation
        execution = measure_execution(path, backend, self._float32, self._int8, images)
        return replace(saturation, execution=execution)
