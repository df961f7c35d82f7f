"""The thresholds that gates compare measurements with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ptqbench.core.names import nearest
from ptqbench.errors import UserError

INSTRUCTION_SETS = ("avx2", "avx2_128", "avx2_vnni", "avx512", "avx512_vnni", "amx", "neon")
"""Instruction sets that a speedup threshold can be for."""

TOP1_POLICIES = ("accuracy", "accuracy_points", "reference_top1")
"""Thresholds of which exactly one is in force: each is another way to judge top-1."""

PARITY = 1.0
"""Speedup that int8 must have over float32 in another runtime: nobody ships what is slower."""

SHARE_KEPT = 0.99
"""Value of ``accuracy`` if no policy is chosen (MLPerf's rule)."""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds that gates compare measurements with.

    Top-1 is judged by one policy: by ``accuracy``, ``accuracy_points`` or
    ``reference_top1``. The other two are None.

    Attributes:
        accuracy: Share of float32 top-1 that int8 must keep; 0.99 unless another policy is
            chosen.
        accuracy_points: Percentage points of top-1 that int8 may lose.
        reference_top1: Top-1 that int8 must reach, as a fraction of 1, whatever float32
            reaches: for example a published value less the tolerated loss.
        top5: Share of float32 top-5 that int8 must keep; None: shown, not judged.
        agreement: Share of images on which int8 and float32 must predict the same class.
        sqnr_db: Signal-to-quantization-noise ratio in dB that the logits must have; None:
            shown and not judged, except on images without labels.
        parity_db: How many dB of SQNR the logits may lose where the file is executed instead of
            simulated.
        size_ratio: How many times smaller the int8 file must be.
        max_bytes: How large the int8 file may be; None: no budget.
        speedup: How many times faster int8 must be, by instruction set; an instruction
            set that is not listed has not been measured and requires nothing.

    Raises:
        UserError: More than one policy for top-1 is set.
    """

    accuracy: float | None = None
    accuracy_points: float | None = None
    reference_top1: float | None = None
    top5: float | None = None
    agreement: float = 0.95
    sqnr_db: float | None = None
    parity_db: float = 3.0
    size_ratio: float = 3.0
    max_bytes: int | None = None
    speedup: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that there is one policy for top-1."""
        policies = [name for name in TOP1_POLICIES if getattr(self, name) is not None]
        if len(policies) > 1:
            raise UserError(two_policies(policies, "Thresholds"))
        if not policies:
            object.__setattr__(self, "accuracy", SHARE_KEPT)

    @property
    def top1_policy(self) -> tuple[str, float]:
        """Name and value of the policy that top-1 is judged by."""
        return next(
            (name, value) for name in TOP1_POLICIES if (value := getattr(self, name)) is not None
        )

    def replaced(self, changes: Mapping[str, Any]) -> Thresholds:
        """Return these thresholds with some replaced.

        Args:
            changes: Values by field. A policy for top-1 replaces the one in force; speedups
                replace those of their instruction sets.

        Raises:
            UserError: Two policies for top-1 are set, or there is no such threshold.
        """
        known = [each.name for each in fields(self)]
        for name in changes:
            if name not in known:
                raise UserError(f"Unknown threshold {name!r}. {nearest(name, known)}")
        values = dict(changes)
        if any(values.get(name) is not None for name in TOP1_POLICIES):
            values = {**dict.fromkeys(TOP1_POLICIES), **values}
        return replace(self, **{**values, "speedup": {**self.speedup, **values.get("speedup", {})}})


def two_policies(names: Sequence[str], where: str) -> str:
    """Return the message for several policies that are set at once."""
    return (
        f"{where} sets {' and '.join(names)}, but top-1 is judged by one policy: accuracy (share "
        "of float32's top-1 kept), accuracy_points (percentage points that may be lost) or "
        "reference_top1 (a fixed value). Keep one of them."
    )
