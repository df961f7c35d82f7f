"""What this CPU is: instruction set, and whether int8 sums saturate. Imports no torch itself."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def cpu_fields() -> Mapping[str, str]:
    """What the operating system says of the first CPU, by name; empty if it says nothing."""
    if not _CPUINFO.exists():
        return {}
    first, _, _ = _CPUINFO.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Feature flags as the operating system names them; empty if it names none."""
    fields = cpu_fields()
    return frozenset((fields.get("flags") or fields.get("Features", "")).split())


def halves_avx2() -> bool:
    """Whether this CPU executes 256-bit instructions as two of 128 bits each.

    AMD did so until Zen+ (families 15h and 17h, the latter below model 30h), and Hygon in its
    copy of Zen (family 18h). float32 has fused multiply-adds there too, and int8 needs three
    instructions for what one of them does, so that little of its advantage is left.
    """
    fields = cpu_fields()
    try:
        family, model = int(fields.get("cpu family", "")), int(fields.get("model", ""))
    except ValueError:
        return False
    if fields.get("vendor_id") == "HygonGenuine":
        return family == 0x18
    return fields.get("vendor_id") == "AuthenticAMD" and (
        family == 0x15 or (family == 0x17 and model < 0x30)
    )


@functools.cache
def instruction_set() -> str:
    """The best int8 instruction set of this CPU that torch may use.

    ``ATEN_CPU_CAPABILITY`` lowers the answer (``avx2`` on a CPU with AVX-512: VNNI counts as
    switched off with it), although oneDNN and fbgemm detect the CPU themselves and do not
    follow it. ``ONEDNN_MAX_CPU_ISA`` lowers what oneDNN uses and not the answer. To simulate
    a smaller CPU, set both; the saturation gate judges the kernels that really run.

    Returns:
        ``amx``, ``avx512_vnni``, ``avx512``, ``avx2_vnni`` (AVX-VNNI without AVX-512, as in
        Alder Lake and Sierra Forest), ``avx2``, ``avx2_128`` (the same instructions, executed
        in halves: `halves_avx2`), ``neon`` or ``other``.
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
    if halves_avx2():
        return "avx2_128"
    return "avx2_vnni" if "avx_vnni" in flags and "avx512f" not in flags else "avx2"


def multiplies_into_16_bits(instructions: str) -> bool:
    """Whether u8×s8 products are added pairwise in 16 bits, which saturates.

    ``vpmaddubsw`` does so on AVX2 and AVX-512 without VNNI; VNNI, AMX and NEON add in 32. That
    is what the instruction set offers: an engine may have kernels that use the old instruction
    on a new CPU (``Backend.sums_in_16_bits``).
    """
    return instructions in {"avx2", "avx2_128", "avx512"}


@functools.cache
def cpu_name() -> str:
    """The CPU's model name, or the architecture if the system does not tell."""
    return cpu_fields().get("model name") or platform.processor() or platform.machine()
