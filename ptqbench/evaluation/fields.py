"""Metrics and facts of measurements by name, as reports contain them."""

from __future__ import annotations

from collections.abc import Sequence

from ptqbench.measurement.accuracy_record import Accuracy
from ptqbench.measurement.conversion import Conversion
from ptqbench.measurement.macs import Macs
from ptqbench.measurement.size import Size
from ptqbench.measurement.speed import Speed

_BROKEN_NAMED = 20
"""Undecodable images that a result names; it counts all of them."""


def metrics_of(*measured: object) -> dict[str, float | None]:
    """Return the metrics of measurements; those without any are ignored."""
    metrics: dict[str, float | None] = {}
    for measurement in measured:
        if isinstance(measurement, Accuracy):
            metrics |= {
                "float32_top1": measurement.float32_top1,
                "int8_top1": measurement.int8_top1,
                "float32_top5": measurement.float32_top5,
                "int8_top5": measurement.int8_top5,
                "agreement": measurement.agreement.value,
                "sqnr_db": measurement.sqnr_db,
            }
        elif isinstance(measurement, Size):
            metrics |= {
                "float32_bytes": measurement.float32_bytes,
                "int8_bytes": measurement.int8_bytes,
                "size_ratio": measurement.ratio,
            }
        elif isinstance(measurement, Speed):
            metrics |= {
                "float32_latency_ms": measurement.float32_ms,
                "int8_latency_ms": measurement.int8_ms,
                "speedup": measurement.speedup.value,
            }
    return metrics


def facts_of(*measured: object) -> dict[str, object]:
    """Return the circumstances of measurements: sample sizes, intervals, threads."""
    facts: dict[str, object] = {}
    for measurement in measured:
        if isinstance(measurement, Accuracy):
            facts |= {
                "evaluation_images": measurement.n,
                **broken_facts("evaluation", measurement.broken),
                "alike_evaluation_images": measurement.alike,
                "labelled": measurement.labelled,
                "agreement_interval": (measurement.agreement.low, measurement.agreement.high),
                "sqnr_interval": (measurement.sqnr.low, measurement.sqnr.high),
            }
        elif isinstance(measurement, Speed):
            facts |= {
                "threads": measurement.threads,
                "input_shape": measurement.input_shape,
                "pairs": measurement.pairs,
                "pairs_correlation": measurement.correlation,
                "speedup_interval": (measurement.speedup.low, measurement.speedup.high),
                "noise_interval": (measurement.noise.low, measurement.noise.high),
                "float32_plain_ms": measurement.float32_plain_ms,
            }
            if (same := measurement.same_runtime) is not None:
                facts |= {
                    "float32_runtime": measurement.opponent,
                    "same_runtime_speedup": same.value,
                    "same_runtime_speedup_interval": (same.low, same.high),
                    "same_runtime_float32_ms": measurement.same_runtime_ms,
                }
    return facts


def macs_facts(macs: Macs, conversion: Conversion | None) -> dict[str, object]:
    """Return the multiply-adds of one image, and the share that the artifact computes in int8.

    Args:
        macs: Of the float model.
        conversion: What the artifact has in int8; None: unknown.
    """
    share = None if conversion is None else macs.share(conversion.int8)
    return {"macs": macs.total, "int8_share_of_macs": share}


def broken_facts(kind: str, names: Sequence[str]) -> dict[str, object]:
    """Return how many images could not be decoded, and the first names.

    Args:
        kind: ``evaluation`` or ``calibration``.
        names: All of them.
    """
    return {
        f"broken_{kind}_images": len(names),
        f"broken_{kind}_files": tuple(names[:_BROKEN_NAMED]),
    }
