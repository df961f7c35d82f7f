"""The four measurements that look inside an artifact, each made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ptqbench.backends.torch_engines.artifact import reason_of
from ptqbench.backends.torch_engines.graph import Graph, read_file
from ptqbench.core.phases import Phases
from ptqbench.measurement.bn_folding import measure_folding
from ptqbench.measurement.conversion import Conversion, Promise, measure_conversion
from ptqbench.measurement.fidelity import Fidelity, Replay, measure_fidelity
from ptqbench.measurement.fresh_process import FreshProcess
from ptqbench.measurement.fusion import Fusion, measure_fusion
from ptqbench.measurement.matched_graphs import Inspection, inspect
from ptqbench.measurement.model_type import Model
from ptqbench.measurement.saturation import Saturation, measure_saturation
from ptqbench.quantization.build_record import BuildRecord

IMAGES = 4
"""Images for fidelity, half of them for exact arithmetic: enough to see every layer used."""
LOOKED_AT = ("fusion", "conversion", "fidelity", "saturation")
"""The measurements, by their fields of ``gates.Evidence``."""


@dataclass(frozen=True)
class Made:
    """An int8 file and what is known about how it was made.

    Attributes:
        path: The TorchScript file.
        engine: torch quantized engine that it was measured under.
        recorded_engine: Engine that the file records; empty if it records none.
        record: What was seen during its build; None if ptqbench did not make it.
        promise: What conversion must yield; an empty one asks for what the float model has.
        saturates_elsewhere: Whether the engine adds in 16 bits on CPUs without VNNI.
        float32: Frozen float32 TorchScript, to hold the weights of a file against that
            brings no record; None: they are not looked at.
    """

    path: Path
    engine: str
    recorded_engine: str
    record: BuildRecord | None
    promise: Promise
    saturates_elsewhere: bool
    float32: Path | None = None


@dataclass(frozen=True)
class Findings:
    """What was found inside an artifact, by the names in :data:`LOOKED_AT`.

    Attributes:
        found: Measurements.
        missing: Why a measurement is missing.
    """

    found: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)


class Inside:
    """Looks inside an int8 artifact; what was found once is kept.

    Args:
        made: The file.
        int8: What the other measurements call.
        reference: ``backends.torch_engines.graph.read_module`` of the float model; the same for all
            backends.
        images: At least :data:`IMAGES`, ``N×C×H×W`` float32.
        fresh: A process for fidelity that was started before; by default one is when needed.
        phases: Where forward passes are counted.
    """

    def __init__(
        self,
        made: Made,
        int8: Model,
        reference: Graph,
        images: Tensor,
        fresh: FreshProcess | None = None,
        phases: Phases | None = None,
    ) -> None:
        self._made = made
        self._int8 = int8
        self._reference = reference
        self._images = images
        self._fresh = fresh
        self._phases = phases
        self._replay: Replay | None = None

    def findings(self, names: Iterable[str] = LOOKED_AT, *, forgiving: bool = False) -> Findings:
        """Make measurements.

        Args:
            names: Which.
            forgiving: Whether an error is a reason why one is missing. Files that somebody
                else made may hold what nobody thought of; in our own it is a defect.
        """
        found: dict[str, Any] = {}
        missing: dict[str, str] = {}
        names = tuple(names)
        with self._fresh or FreshProcess() if "fidelity" in names else nullcontext() as process:
            if process is not None:
                self._replay = self._replayed(process)
            # The fresh process runs the file meanwhile.
            for name in sorted(names, key="fidelity".__eq__):
                try:
                    found[name] = getattr(self, name)
                except Exception as error:
                    if not forgiving:
                        raise
                    reason = f"{type(error).__name__}: {reason_of(error)}"
                    missing[name] = f"The {name} could not be measured in this file ({reason})."
        return Findings(found, missing)

    def _replayed(self, process: FreshProcess) -> Replay:
        made = self._made
        images = self._images[:IMAGES]
        return Replay(process, made.path, images, made.recorded_engine or made.engine)

    @cached_property
    def _inspection(self) -> Inspection:
        return inspect(self._made.path, self._made.engine, self._reference)

    @cached_property
    def fusion(self) -> Fusion:
        """Whether fusion was right."""
        made, found = self._made, self._inspection
        folding = None
        if made.record is None and made.float32 is not None:
            folded = read_file(made.float32, made.engine)
            folding = measure_folding(found.graph, folded, found.matches)
        return measure_fusion(found, made.record, folding, made.promise.keeps)

    @cached_property
    def conversion(self) -> Conversion:
        """Whether everything was converted that should be."""
        return measure_conversion(self._inspection, self._made.promise, self._made.record)

    @cached_property
    def fidelity(self) -> Fidelity:
        """Whether a fresh process gives the same logits."""
        return measure_fidelity(
            self._made.path,
            self._int8,
            self._images[:IMAGES],
            measured_engine=self._made.engine,
            recorded_engine=self._made.recorded_engine,
            replay=self._replay,
            phases=self._phases,
        )

    @cached_property
    def saturation(self) -> Saturation:
        """Whether int8 layers compute what integers would."""
        return measure_saturation(
            self._inspection,
            self._made.engine,
            self._images[: IMAGES // 2],
            saturates_elsewhere=self._made.saturates_elsewhere,
            phases=self._phases,
        )
