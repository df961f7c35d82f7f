"""The records that a run ends in, and what they mean for the exit code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ptqbench.core.names import printable
from ptqbench.core.phases import Phase
from ptqbench.core.version import package_version
from ptqbench.gates.gate import GateResult, Verdict

SCHEMA_VERSION = 1
"""Version of the JSON result; it changes when a field changes its meaning or goes away."""

METRICS = (
    "float32_top1",
    "int8_top1",
    "float32_top5",
    "int8_top5",
    "agreement",
    "sqnr_db",
    "float32_bytes",
    "int8_bytes",
    "size_ratio",
    "float32_latency_ms",
    "int8_latency_ms",
    "speedup",
)
"""Names of the metrics of a case; shares are fractions of 1."""

SEVERITY = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.UNVERIFIED, Verdict.PASS)
"""Verdicts from the one that matters most to the one that matters least."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a whole: its worst part; nothing at all is unverified, never a pass."""
    return min(verdicts, key=SEVERITY.index, default=Verdict.UNVERIFIED)


def plain(value: object) -> object:
    """Turn ``value`` into what JSON can say.

    Infinities and NaN, for which JSON has no number, become None; enums their value, paths
    strings, tuples lists and NumPy scalars Python numbers. In strings, what UTF-8 cannot
    write is escaped.

    Args:
        value: Any nesting of mappings, sequences and scalars.

    Raises:
        TypeError: A value has no counterpart in JSON.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (str, Path)):
        return printable(str(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {printable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        return plain(value.item())
    raise TypeError(f"{type(value).__name__} has no counterpart in JSON: {value!r}")


@dataclass(frozen=True)
class CaseResult:
    """What was found out about one case.

    Attributes:
        model: Registered name of the model.
        weights: Where its parameters came from: ``fixture`` or a path.
        backend: What executed int8.
        data: The evaluation images: ``fixture`` or a path.
        recipe: Hash of the recipe.
        metrics: A number for each name in `METRICS`; None or missing: not measured.
        gates: The verdicts.
        facts: Circumstances: ``engine``, ``threads``, ``input_shape``, ``flow``, intervals, ...
        phases: Where the time of this case went.
    """

    model: str
    weights: str
    backend: str
    data: str
    recipe: str
    metrics: Mapping[str, float | None]
    gates: tuple[GateResult, ...]
    facts: Mapping[str, object] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the gates."""
        return worst(gate.verdict for gate in self.gates)

    def to_dict(self) -> dict[str, object]:
        """The case as JSON says it; every metric is there, None where it was not measured."""
        names = [*METRICS, *(name for name in self.metrics if name not in METRICS)]
        return {
            "model": plain(self.model),
            "weights": plain(self.weights),
            "backend": plain(self.backend),
            "data": plain(self.data),
            "recipe": plain(self.recipe),
            "verdict": self.verdict.value,
            "metrics": {printable(name): plain(self.metrics.get(name)) for name in names},
            "gates": [_gate(gate) for gate in self.gates],
            "facts": plain(self.facts),
            "phases": [_phase(phase) for phase in self.phases],
        }


@dataclass(frozen=True)
class Report:
    """What a run found out.

    Attributes:
        machine: Facts: ``cpu``, ``instruction_set``, ``physical_cores``, ``python``, ``torch``, ...
        cases: One record per case, in the order in which they were measured.
        settings: What was asked for: seed, threads, sizes, ...
        phases: Where the time of the run went.
        wall_seconds: Time of the whole process in s, None if it is not known.
        notes: What a reader must know beside the cases: what was left out and why.
        ptqbench_version: The version that measured.
        schema_version: Version of the JSON result.
    """

    machine: Mapping[str, object]
    cases: tuple[CaseResult, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()
    wall_seconds: float | None = None
    notes: tuple[str, ...] = ()
    ptqbench_version: str = field(default_factory=package_version)
    schema_version: int = SCHEMA_VERSION

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the cases."""
        return worst(case.verdict for case in self.cases)

    def exit_code(self, strict: bool = False) -> int:
        """What the process shall return.

        Args:
            strict: Whether what could not be decided counts.

        Returns:
            1 if a gate failed; 3 if none did, but one is inconclusive or unverified and
            ``strict`` is set; else 0.
        """
        if self.verdict is Verdict.FAIL:
            return 1
        return 3 if strict and self.verdict is not Verdict.PASS else 0

    def to_dict(self) -> dict[str, object]:
        """The report as JSON says it; ``result.schema.json`` describes it."""
        return {
            "schema_version": self.schema_version,
            "ptqbench_version": self.ptqbench_version,
            "verdict": self.verdict.value,
            "machine": plain(self.machine),
            "settings": plain(self.settings),
            "cases": [case.to_dict() for case in self.cases],
            "phases": [_phase(phase) for phase in self.phases],
            "wall_seconds": plain(self.wall_seconds),
            "notes": plain(self.notes),
        }


@dataclass(frozen=True)
class Prediction:
    """What both precisions see in one image.

    Attributes:
        model: Registered name of the model.
        weights: Where its parameters came from.
        backend: What executed int8.
        float32: Label and probability of the most likely classes, best first.
        int8: The same from the artifact.
        notes: What a reader should know about the weights.
    """

    model: str
    weights: str
    backend: str
    float32: tuple[tuple[str, float], ...]
    int8: tuple[tuple[str, float], ...]
    notes: tuple[str, ...] = ()


def _gate(gate: GateResult) -> dict[str, object]:
    return {
        "name": plain(gate.name),
        "verdict": gate.verdict.value,
        "observed": plain(gate.observed),
        "threshold": plain(gate.threshold),
        "interval": plain(gate.interval),
        "n": gate.n,
        "detail": plain(gate.detail),
        "criterion": gate.criterion,
    }


def _phase(phase: Phase) -> dict[str, object]:
    return {"name": plain(phase.name), "seconds": plain(phase.seconds), "forward": phase.forward}
