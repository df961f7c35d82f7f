"""Gates: a measurement against a threshold gives a verdict. Importing registers them all.

A gate is a module of this package that registers itself; nothing else has to name it.
"""

from __future__ import annotations

import importlib
import pkgutil

from ptqbench.gates.gate import GATES, Evidence, Gate, GateResult, evaluate, gates_in_order
from ptqbench.gates.verdict import SEVERITY, Verdict, worst

__all__ = [
    "GATES",
    "SEVERITY",
    "Evidence",
    "Gate",
    "GateResult",
    "Verdict",
    "evaluate",
    "gates_in_order",
    "worst",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
