"""What the machine is, for the report."""

from __future__ import annotations

import platform

import torch

from ptqbench.backends.isa import cpu_name, instruction_set, physical_cores


def machine_facts() -> dict[str, object]:
    """CPU, instruction set, cores, system, Python, torch and its quantized engines."""
    return {
        "cpu": cpu_name(),
        "instruction_set": instruction_set(),
        "physical_cores": physical_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "engines": [e for e in torch.backends.quantized.supported_engines if e != "none"],
    }
