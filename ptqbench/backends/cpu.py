"""What this CPU is: instruction set, and whether int8 sums saturate. Imports no torch itself."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Feature flags as the operating system names them; empty if it names none."""
    if not _CPUINFO.exists():
        return frozenset()
    for line in _CPUINFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


@functools.cache
def instruction_set() -> str:
    """The best int8 instruction set of this CPU that torch may use.

    ``ATEN_CPU_CAPABILITY`` lowers the answer (``avx2`` on a CPU with AVX-512: VNNI counts as
    switched off with it), although oneDNN and fbgemm detect the CPU themselves and do not
    follow it. ``ONEDNN_MAX_CPU_ISA`` lowers what oneDNN uses and not the answer. To simulate
    a smaller CPU, set both; the saturation gate judges the kernels that really run.

    Returns:
        ``amx``, ``avx512_vnni``, ``avx512``, ``avx2_vnni`` (AVX-VNNI without AVX-512, as in
        Alder Lake and Sierra Forest), ``avx2``, ``neon`` or ``other``.
    """
    if platform.machine().lower() in {"aarch64", "arm64"}:
        return "neon"
    import torch

    capability = torch.backends.cpu.get_cpu_capability().lower()
    flags = cpu_flags()
    if capability.startswith("avx512"):
        if "amx_int8" in flags:
            return "amx"
        return "avx512_vnni" if "avx512_vnni" in flags else "avx512"
    if capability != "avx2":
        return "other"
    return "avx2_vnni" if "avx_vnni" in flags and "avx512f" not in flags else "avx2"


def multiplies_into_16_bits(instructions: str) -> bool:
    """Whether u8×s8 products are added pairwise in 16 bits, which saturates.

    ``vpmaddubsw`` does so on AVX2 and AVX-512 without VNNI; VNNI, AMX and NEON add in 32. That
    is what the instruction set offers: an engine may have kernels that use the old instruction
    on a new CPU (``Backend.sums_in_16_bits``).
    """
    return instructions in {"avx2", "avx512"}


@functools.cache
def cpu_name() -> str:
    """The CPU's model name, or the architecture if the system does not tell."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
