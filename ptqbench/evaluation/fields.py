"""What a report says of a measurement: metrics and facts by name."""

from __future__ import annotations

from collections.abc import Sequence

from ptqbench.measurement.accuracy import Accuracy
from ptqbench.measurement.conversion import Conversion
from ptqbench.measurement.macs import Macs
from ptqbench.measurement.size import Size
from ptqbench.measurement.speed import Speed

_BROKEN_NAMED = 20
"""Undecodable images that a result names; it counts all of them."""


def metrics_of(*measured: object) -> dict[str, float | None]:
    """Metrics of measurements; those that have none are passed over."""
    metrics: dict[str, float | None] = {}
    for found in measured:
        if isinstance(found, Accuracy):
            metrics |= {
                "float32_top1": found.float32_top1,
                "int8_top1": found.int8_top1,
                "float32_top5": found.float32_top5,
                "int8_top5": found.int8_top5,
                "agreement": found.agreement.value,
                "sqnr_db": found.sqnr_db,
            }
        elif isinstance(found, Size):
            metrics |= {
                "float32_bytes": found.float32_bytes,
                "int8_bytes": found.int8_bytes,
                "size_ratio": found.ratio,
            }
        elif isinstance(found, Speed):
            metrics |= {
                "float32_latency_ms": found.float32_ms,
                "int8_latency_ms": found.int8_ms,
                "speedup": found.speedup.value,
            }
    return metrics


def facts_of(*measured: object) -> dict[str, object]:
    """Circumstances of measurements: sample sizes, intervals, threads."""
    facts: dict[str, object] = {}
    for found in measured:
        if isinstance(found, Accuracy):
            facts |= {
                "evaluation_images": found.n,
                **broken_facts("evaluation", found.broken),
                "labelled": found.labelled,
                "agreement_interval": (found.agreement.low, found.agreement.high),
                "sqnr_interval": (found.sqnr.low, found.sqnr.high),
            }
        elif isinstance(found, Speed):
            facts |= {
                "threads": found.threads,
                "input_shape": found.input_shape,
                "pairs": found.pairs,
                "speedup_interval": (found.speedup.low, found.speedup.high),
                "noise_interval": (found.noise.low, found.noise.high),
                "float32_plain_ms": found.float32_plain_ms,
            }
    return facts


def macs_facts(macs: Macs, conversion: Conversion | None) -> dict[str, object]:
    """Multiply-adds of one image, and the share of them that the artifact does in int8.

    Args:
        macs: Of the float model.
        conversion: What the artifact has in int8; None: unknown.
    """
    share = None if conversion is None else macs.share(conversion.int8)
    return {"macs": macs.total, "int8_share_of_macs": share}


def broken_facts(kind: str, names: Sequence[str]) -> dict[str, object]:
    """How many images could not be decoded, and the first names.

    Args:
        kind: ``evaluation`` or ``calibration``.
        names: All of them.
    """
    return {
        f"broken_{kind}_images": len(names),
        f"broken_{kind}_files": tuple(names[:_BROKEN_NAMED]),
    }
