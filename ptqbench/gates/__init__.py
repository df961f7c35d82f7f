"""Gates: a measurement against a threshold gives a verdict. Importing registers them all."""

from __future__ import annotations

from ptqbench.gates import accuracy, agreement, size, speedup
from ptqbench.gates.base import (
    GATES,
    Evidence,
    Gate,
    GateResult,
    Thresholds,
    Verdict,
    decide,
    evaluate,
)
from ptqbench.gates.settled import accuracy_settled

__all__ = [
    "GATES",
    "Evidence",
    "Gate",
    "GateResult",
    "Thresholds",
    "Verdict",
    "accuracy",
    "accuracy_settled",
    "agreement",
    "decide",
    "evaluate",
    "size",
    "speedup",
]
