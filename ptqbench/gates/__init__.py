"""Gates: a measurement against a threshold gives a verdict. Importing registers them all."""

from __future__ import annotations

from ptqbench.gates import (  # isort: skip  (the order of registration is that of the report)
    fusion,
    conversion,
    accuracy,
    agreement,
    size,
    speedup,
    fidelity,
    saturation,
)
from ptqbench.gates.gate import (
    GATES,
    Evidence,
    Gate,
    GateResult,
    Verdict,
    decide,
    evaluate,
)
from ptqbench.gates.stopping import stopping_rule
from ptqbench.settings.thresholds import Thresholds

__all__ = [
    "GATES",
    "Evidence",
    "Gate",
    "GateResult",
    "Thresholds",
    "Verdict",
    "accuracy",
    "agreement",
    "conversion",
    "decide",
    "evaluate",
    "fidelity",
    "fusion",
    "saturation",
    "size",
    "speedup",
    "stopping_rule",
]
