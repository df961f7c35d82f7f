"""Evidence as plain JSON values, and back: gates can judge again without new measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ptqbench.gates.gate import Evidence
from ptqbench.measurement.accuracy_record import Accuracy
from ptqbench.measurement.conversion import Conversion
from ptqbench.measurement.fidelity import Fidelity
from ptqbench.measurement.fusion import Fusion
from ptqbench.measurement.parity import Parity
from ptqbench.measurement.saturation import Saturation
from ptqbench.measurement.size import Size
from ptqbench.measurement.speed import Speed
from ptqbench.settings.thresholds import Thresholds

if TYPE_CHECKING:
    from cattrs import Converter

RECORDS: dict[str, type] = {
    "accuracy": Accuracy,
    "conversion": Conversion,
    "fidelity": Fidelity,
    "fusion": Fusion,
    "parity": Parity,
    "saturation": Saturation,
    "size": Size,
    "speed": Speed,
}
"""The record of each measurement, by the name that gates need it under."""


@cache
def _converter() -> Converter:
    # Imported when a result is written or read: a run that only prints does not need it.
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True)
    converter.register_unstructure_hook(float, _plain_number)
    converter.register_structure_hook(float, lambda value, _: float(value))
    return converter


def _plain_number(value: float) -> float | str:
    """Write infinities and NaN, for which JSON has no number, as ``inf``, ``-inf`` and ``nan``."""
    return float(value) if math.isfinite(value) else str(float(value))


def to_plain(evidence: Evidence) -> dict[str, Any]:
    """Return evidence as mappings, lists, texts and finite numbers.

    Args:
        evidence: What was measured; a measurement without a record in `RECORDS` is left out.
    """
    convert = _converter().unstructure
    return {
        "thresholds": convert(evidence.thresholds),
        "instruction_set": evidence.instruction_set,
        "kernels_for": list(evidence.kernels_for),
        "unavailable": evidence.unavailable,
        "missing": dict(evidence.missing),
        "measurements": {
            name: convert(measurement, RECORDS[name])
            for name, measurement in evidence.measurements.items()
            if name in RECORDS
        },
    }


def from_plain(content: Mapping[str, Any]) -> Evidence:
    """Restore evidence; the inverse of `to_plain`.

    Raises:
        KeyError, TypeError, ValueError, cattrs.BaseValidationError: It is not such content.
    """
    convert = _converter().structure
    return Evidence(
        thresholds=convert(content["thresholds"], Thresholds),
        instruction_set=str(content["instruction_set"]),
        measurements={
            name: convert(value, RECORDS[name]) for name, value in content["measurements"].items()
        },
        missing=dict(content["missing"]),
        kernels_for=tuple(content["kernels_for"]),
        unavailable=content["unavailable"],
    )
