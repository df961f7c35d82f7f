"""Describe the machine for the report."""

from __future__ import annotations

import platform

import torch

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import cpu_flags, cpu_name, instruction_set
from ptqbench.core.cpu_count import cpu_quota, physical_cores

_INT8_FLAGS = (
    "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8",
    "asimd", "asimddp", "i8mm",
)  # fmt: skip
"""Flags of the CPU that int8 and float32 kernels are chosen by."""


def machine_facts() -> dict[str, object]:
    """Describe CPU, cores, a container's quota, system, Python, torch and its engines."""
    return {
        "cpu": cpu_name(),
        "instruction_set": instruction_set(),
        "flags": [flag for flag in _INT8_FLAGS if flag in cpu_flags()],
        "physical_cores": physical_cores(),
        **({} if (quota := cpu_quota()) is None else {"cpu_quota": quota}),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "engines": [b.engine for b in BACKENDS if b.availability() is None],
    }
