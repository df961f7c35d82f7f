"""What is wrong in a file, or slow, or works on some CPUs only: one finding of a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptqbench.core.names import first_few
from ptqbench.inspection.file_layers import DYNAMIC, INT8, FileLayer, share_of
from ptqbench.inspection.weight_pairs import FilePairing, leave_16_bits

Severity = Literal["error", "warning", "note"]
_ORDER = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Something about a file that its user should know.

    Attributes:
        kind: A word for programs.
        severity: ``error``: the file computes nonsense; ``warning``: it is slower or less exact
            than it could be, or wrong on some CPUs; ``note``: worth knowing.
        message: What is so.
        remedy: What to do.
        places: Names of layers or operators.
        share: Of all multiply-adds, 0 to 1; None if it does not apply or is not known.
    """

    kind: str
    severity: Severity
    message: str
    remedy: str
    places: tuple[str, ...] = ()
    share: float | None = None


@dataclass(frozen=True)
class LayerKind:
    """Something that layers can have in common.

    Attributes:
        kind: A word for programs.
        severity: As of a `Finding`.
        test: Whether a layer has it.
        message: What is so; ``{}`` is the number of layers.
        remedy: What to do, in the words of the tool that wrote the file.
    """

    kind: str
    severity: Severity
    test: Callable[[FileLayer], bool]
    message: str
    remedy: str


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings, the worst first."""
    return tuple(sorted(findings, key=lambda each: _ORDER.index(each.severity)))


def layer_findings(
    layers: Sequence[FileLayer], kinds: Iterable[LayerKind], remedy: str
) -> Iterator[Finding]:
    """What layers have in common, each kind once.

    Args:
        layers: Of the file.
        kinds: What is looked for.
        remedy: What to do about integers that are executed in float32.
    """
    if layers and not any(layer.precision in (INT8, DYNAMIC) for layer in layers):
        yield Finding(
            "nothing is int8",
            "error",
            f"nothing is quantized: none of {_count(layers)} multiplies integers",
            "Quantize weights and activations (static quantization), or keep the float32 file.",
        )
    for each in kinds:
        matches = [layer for layer in layers if each.test(layer)]
        if not matches:
            continue
        names = tuple(layer.name for layer in matches)
        message = each.message.format(_count(matches))
        share = share_of(matches, layers)
        yield Finding(each.kind, each.severity, message, each.remedy, names, share)
    for reason in dict.fromkeys(layer.obstacle for layer in layers if layer.obstacle):
        matches = [layer for layer in layers if layer.obstacle == reason]
        yield Finding(
            "integers without an int8 kernel",
            "warning",
            f"int8 weights that are executed in float32 in {_count(matches)}: {reason}",
            remedy,
            tuple(layer.name for layer in matches),
            share_of(matches, layers),
        )


def _count(layers: Sequence[FileLayer]) -> str:
    return "1 layer" if len(layers) == 1 else f"{len(layers):,} layers"


def saturates(layer: FileLayer, pairing: FilePairing) -> bool:
    """Whether products of a layer can leave 16 bits where a CPU has no VNNI.

    Args:
        layer: Of the file.
        pairing: Which products the runtime adds.
    """
    if layer.weights is None or layer.weights.dtype != np.int8 or layer.exact or layer.shared:
        return False
    if layer.precision not in (INT8, DYNAMIC):
        return False
    return leave_16_bits(layer.weights, layer.groups, pairing)


def range_findings(broken: Sequence[str], default: Sequence[str], ranges: int) -> Iterator[Finding]:
    """Scales that no calibration gives.

    Args:
        broken: Operators whose scales are none.
        default: Operators with a scale of 1 and a zero point of 0.
        ranges: Number of all ranges of activations.
    """
    if broken:
        yield Finding(
            "broken scales",
            "error",
            f"scales that are no numbers, infinite, negative or zero: {len(broken)}",
            "Quantize again, with calibration images that are neither empty nor damaged.",
            tuple(dict.fromkeys(broken)),
        )
    if default:
        yield Finding(
            "not calibrated",
            "error",
            f"scale 1 and zero point 0 in {len(default)} of {ranges} ranges, as before calibration",
            "Calibrate before converting, with images like those of the application.",
            tuple(dict.fromkeys(default)),
        )


def sentence(finding: Finding) -> str:
    """A finding in a sentence or two, with the first places."""
    text: str = finding.message[0].upper() + finding.message[1:]
    return f"{text} ({first_few(list(finding.places))})." if finding.places else f"{text}."
