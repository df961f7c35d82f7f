"""ptqbench: the release gate for quantized PyTorch vision models.

``ptqbench.quantize`` makes an int8 artifact, ``ptqbench.validate`` judges one. Names are
looked up when they are first used, so that importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptqbench.api import quantize, validate
    from ptqbench.backends.artifact import Artifact
    from ptqbench.data.preprocessing import Preprocessing
    from ptqbench.errors import UserError
    from ptqbench.evaluation.result import CaseResult, Report
    from ptqbench.gates.gate import GateResult
    from ptqbench.gates.verdict import Verdict
    from ptqbench.models.custom.registration import register_model
    from ptqbench.recipes import Recipe
    from ptqbench.settings.run_settings import RunSettings
    from ptqbench.settings.thresholds import Thresholds

_LAZY = {
    "Artifact": "ptqbench.backends.artifact",
    "CaseResult": "ptqbench.evaluation.result",
    "GateResult": "ptqbench.gates.gate",
    "Preprocessing": "ptqbench.data.preprocessing",
    "Recipe": "ptqbench.recipes",
    "Report": "ptqbench.evaluation.result",
    "RunSettings": "ptqbench.settings.run_settings",
    "Thresholds": "ptqbench.settings.thresholds",
    "UserError": "ptqbench.errors",
    "Verdict": "ptqbench.gates.verdict",
    "quantize": "ptqbench.api",
    "register_model": "ptqbench.models.custom.registration",
    "validate": "ptqbench.api",
}

__all__ = [
    "Artifact",
    "CaseResult",
    "GateResult",
    "Preprocessing",
    "Recipe",
    "Report",
    "RunSettings",
    "Thresholds",
    "UserError",
    "Verdict",
    "quantize",
    "register_model",
    "validate",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'ptqbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
