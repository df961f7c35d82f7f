"""What this CPU is: instruction set, and whether int8 sums saturate."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Feature flags as the operating system names them; empty where it names none."""
    if not _CPUINFO.exists():
        return frozenset()
    for line in _CPUINFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


@functools.cache
def instruction_set() -> str:
    """The best int8 instruction set that torch uses here.

    Returns:
        ``amx``, ``avx512_vnni``, ``avx512``, ``avx2``, ``neon`` or ``other``. torch's own
        view (``torch.backends.cpu.get_cpu_capability``) decides, so that a capability
        that was switched off (``ATEN_CPU_CAPABILITY``) does not count.
    """
    if platform.machine().lower() in {"aarch64", "arm64"}:
        return "neon"
    capability = torch.backends.cpu.get_cpu_capability().lower()
    flags = cpu_flags()
    if capability.startswith("avx512"):
        if "amx_int8" in flags:
            return "amx"
        return "avx512_vnni" if "avx512_vnni" in flags else "avx512"
    return "avx2" if capability == "avx2" else "other"


def multiplies_into_16_bits(instructions: str) -> bool:
    """Whether u8×s8 products are added pairwise in 16 bits, which saturates.

    ``vpmaddubsw`` does so on AVX2 and AVX-512 without VNNI; VNNI, AMX and NEON add in 32. That
    is what there is to choose from: an engine may have kernels that use the old instruction
    on a new CPU (``Backend.sums_in_16_bits``).
    """
    return instructions in {"avx2", "avx512"}


@functools.cache
def cpu_name() -> str:
    """The CPU's model name, or the architecture where the system does not tell."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
