"""The result of a run: records that can be written, read back and judged again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from ptqbench.core.names import printable
from ptqbench.core.phases import Phase
from ptqbench.core.version import package_version
from ptqbench.errors import UserError
from ptqbench.evaluation.evidence_codec import from_plain, to_plain
from ptqbench.gates import Evidence, GateResult, evaluate
from ptqbench.gates.verdict import Verdict, worst
from ptqbench.settings.thresholds import Thresholds

SCHEMA_VERSION = 2
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


def plain(value: object) -> object:
    """Convert a value to JSON values.

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
    """The result of one case.

    Attributes:
        model: Registered name of the model.
        weights: Source of its parameters: ``fixture``, ``probe``, a path, …
        backend: What executed int8.
        data: The evaluation images: ``fixture`` or a path.
        recipe: Hash of the recipe that the artifact was built with; empty if unknown.
        metrics: A number for each name in `METRICS`; None or missing: not measured.
        gates: The verdicts.
        facts: Circumstances: ``engine``, ``threads``, ``input_shape``, ``flow``, intervals, ...
        evidence: The measurements that the gates judged, raw samples included; None if the case
            was never measured.
    """

    model: str
    weights: str
    backend: str
    data: str
    recipe: str
    metrics: Mapping[str, float | None]
    gates: tuple[GateResult, ...]
    facts: Mapping[str, object] = field(default_factory=dict)
    evidence: Evidence | None = None

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the gates."""
        return worst(gate.verdict for gate in self.gates)

    def judged_by(self, thresholds: Thresholds) -> CaseResult:
        """Return the case judged by other thresholds, from the same measurements.

        Raises:
            ValueError: The case has no evidence.
        """
        if self.evidence is None:
            raise ValueError(f"{self.model} on {self.backend} has no measurements to judge.")
        evidence = replace(self.evidence, thresholds=thresholds)
        gates = evaluate(evidence, [gate.name for gate in self.gates])
        return replace(self, gates=gates, evidence=evidence)

    def to_dict(self) -> dict[str, object]:
        """Return the case as JSON values; a metric that was not measured is None."""
        names = [*METRICS, *(name for name in self.metrics if name not in METRICS)]
        return {
            "model": self.model,
            "weights": plain(self.weights),
            "backend": self.backend,
            "data": plain(self.data),
            "recipe": self.recipe,
            "verdict": self.verdict.value,
            "metrics": {name: plain(self.metrics.get(name)) for name in names},
            "gates": [_gate(gate) for gate in self.gates],
            "facts": plain(self.facts),
            "evidence": None if self.evidence is None else plain(to_plain(self.evidence)),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CaseResult:
        """Restore a case; the inverse of `to_dict`.

        Facts are as JSON has them: lists instead of tuples, None instead of infinities.

        Raises:
            KeyError, TypeError, ValueError: It is not such content.
        """
        metrics = content["metrics"].items()
        evidence = content["evidence"]
        return cls(
            **{n: content[n] for n in ("model", "weights", "backend", "data", "recipe", "facts")},
            metrics={name: value for name, value in metrics if value is not None},
            gates=tuple(_gate_result(gate) for gate in content["gates"]),
            evidence=None if evidence is None else from_plain(evidence),
        )


@dataclass(frozen=True)
class Report:
    """The result of a run.

    Attributes:
        machine: Facts: ``cpu``, ``instruction_set``, ``physical_cores``, ``python``, ``torch``, ...
        cases: One record per case, in the order in which they were measured.
        settings: The settings it was measured with: seed, threads, sizes, …
        phases: Where the time of the run went.
        wall_seconds: Time of the whole process in s, None if it is not known.
        notes: What a reader must know besides the cases: what was left out and why.
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
        """Return the exit code of the process.

        Args:
            strict: Whether what could not be decided counts.

        Returns:
            1 if a gate failed; 3 if none did, but one is inconclusive or unverified and
            ``strict`` is set; else 0.
        """
        if self.verdict is Verdict.FAIL:
            return 1
        return 3 if strict and self.verdict is not Verdict.PASS else 0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """Restore a report; the inverse of `to_dict`.

        Raises:
            UserError: It is not a result of ptqbench, or of another schema version.
        """
        version = content.get("schema_version") if isinstance(content, Mapping) else None
        if version != SCHEMA_VERSION:
            described = "not a result of ptqbench" if version is None else f"version {version}"
            raise UserError(
                f"The result cannot be read: it is {described}, but this ptqbench "
                f"({package_version()}) reads version {SCHEMA_VERSION}. Measure again."
            )
        try:
            return cls(
                machine=dict(content["machine"]),
                cases=tuple(CaseResult.from_dict(case) for case in content["cases"]),
                settings=dict(content["settings"]),
                phases=tuple(Phase(**phase) for phase in content["phases"]),
                wall_seconds=content["wall_seconds"],
                notes=tuple(content["notes"]),
                ptqbench_version=content["ptqbench_version"],
            )
        except Exception as error:  # a converter has many ways to refuse a damaged file
            raise UserError(
                f"The result cannot be read: {type(error).__name__}: {error}. Measure again."
            ) from None

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON values, as ``result.schema.json`` describes them."""
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
    """The prediction of both precisions for one image.

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


def _gate_result(content: Mapping[str, Any]) -> GateResult:
    interval = content["interval"]
    limits = None if interval is None else (_limit(interval[0], -1), _limit(interval[1], 1))
    return GateResult(**{**content, "verdict": Verdict(content["verdict"]), "interval": limits})


def _limit(value: float | None, side: int) -> float:
    """A limit of an interval; one without a number is unbounded."""
    return side * math.inf if value is None else value


def _phase(phase: Phase) -> dict[str, object]:
    return {"name": plain(phase.name), "seconds": plain(phase.seconds), "forward": phase.forward}
