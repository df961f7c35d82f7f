"""Results of the coverage sweep as tests make them up, and the way to its scripts."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ptqbench.recipes import RECIPES

Script = Callable[[str], ModuleType]
"""Imports a module of ``benchmarks.coverage``."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    return lambda name: importlib.import_module(f"benchmarks.coverage.{name}")


def case(
    *,
    agreed: int = 396,
    kept: tuple[int, int, int, int] = (300, 2, 2, 96),
    sqnr_db: float = 30.0,
    speedup: tuple[float, float, float] = (2.0, 1.9, 2.1),
    backend: str = "x86",
    **changed: Any,
) -> dict[str, Any]:
    """A measured case of 400 images, every one with the same SQNR."""
    n, signal = 400, 100.0
    noise = signal / 10 ** (sqnr_db / 10)
    sums = [n, n * signal, n * noise, n * signal**2, n * noise**2, n * signal * noise]
    return {
        "status": "measured",
        "backend": backend,
        "flow": "fx",
        "accuracy": {
            "agreed": agreed,
            "top1": list(kept),
            "top5": [n, 0, 0, 0],
            "noise": sums,
            "classes": 16,
        },
        "size": [4000, 1000],
        "speed": {
            "speedup": list(speedup),
            "noise": [1.0, 0.99, 1.01],
            "float32_ms": 20.0,
            "int8_ms": 10.0,
            "pairs": 20,
            "threads": 2,
        },
        "instruction_set": "avx2",
        "kernels_for": ["neon"] if backend == "qnnpack" else ["avx2"],
        "fused": [20, 20],
        "int8_share_of_macs": 0.99,
        "calibration_images": 256,
        "gates": dict.fromkeys(("fusion", "conversion", "fidelity", "saturation"), "pass"),
        "details": {},
        **changed,
    }


def result(model: str = "vgg11", **cases: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "key": "k",
        "method": "m",
        "weights": "probe",
        "parameters": 1_000_000,
        "macs": 2_000_000_000,
        "evaluation_side": 64,
        "evaluation_images": 400,
        "input_shape": [1, 3, 224, 224],
        "fused_groups": 20,
        "int8_modules": 21,
        "machine": {"cpu": "A", "instruction_set": "avx2", "physical_cores": 2},
        "cases": cases,
    }


VGG = RECIPES.get("vgg11")
