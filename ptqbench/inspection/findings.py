"""What is wrong in an ONNX file, or slow, or works on some CPUs only: one finding of a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ptqbench.core.names import first_few
from ptqbench.inspection.file_layers import DYNAMIC, FLOAT, INT8, FileLayer
from ptqbench.inspection.onnx_view import DEQUANTIZE, QUANTIZE, OnnxView
from ptqbench.inspection.weight_pairs import leave_16_bits

if TYPE_CHECKING:
    import onnx

Severity = Literal["error", "warning", "note"]
_SCALES = {
    QUANTIZE: ((1, 2),),
    DEQUANTIZE: ((1, 2),),
    "QLinearConv": ((1, 2), (4, 5), (6, 7)),
    "QLinearMatMul": ((1, 2), (4, 5), (6, 7)),
    "QGemm": ((1, 2), (4, 5), (7, 8)),
    "QLinearAdd": ((6, 7),),
    "QLinearMul": ((6, 7),),
}
"""Where operators have pairs of a scale and a zero point among their inputs."""
_KERNELS = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm", "MatMul"),
        *("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool"),
        *("LeakyRelu", "Sigmoid", "Softmax"),
        *("MaxPool", "ArgMax", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"),
        *("Identity", "Expand", "Tile", "Gather", "Slice", "Split", "Resize", "Pad", "Where"),
        *("DepthToSpace", "SpaceToDepth", "Relu", "Clip", "QuantizeLinear"),
    }
)
"""Operators that have an int8 kernel, only move values, or are fused into a layer in front."""


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


def findings_of(view: OnnxView, layers: Sequence[FileLayer]) -> tuple[Finding, ...]:
    """Return the findings of a file, the worst first."""
    order = ("error", "warning", "note")
    every = [*_numbers(view, layers), *_layers(layers), *_operators(view)]
    return tuple(sorted(every, key=lambda each: order.index(each.severity)))


def share_of(layers: Iterable[FileLayer], every: Iterable[FileLayer]) -> float | None:
    """The share of all multiply-adds that some layers do; None if some are not known."""
    total = [layer.multiply_adds for layer in every]
    part = [layer.multiply_adds for layer in layers]
    if None in total or not any(total):
        return None
    return sum(filter(None, part)) / sum(filter(None, total))


def _numbers(view: OnnxView, layers: Sequence[FileLayer]) -> Iterator[Finding]:
    """Scales that no calibration gives."""
    broken, default, ranges = [], [], 0
    for node in view.nodes:
        for place, zero_place in _SCALES.get(node.op_type, ()):
            scale, zero = view.constant(node, place), view.constant(node, zero_place)
            if scale is None:
                continue
            integers = view.constant(node, place - 1) if place in (1, 4) else None
            if _is_broken(scale, integers):
                broken.append(_label(node))
            if integers is None and scale.size == 1 and node.op_type != DEQUANTIZE:
                ranges += 1
                # A zero point of nothing means a range that begins at zero, or has none.
                if float(scale.reshape(())) == 1 and (zero is None or not zero.any()):
                    default.append(_label(node))
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
    if layers and not any(layer.precision in (INT8, DYNAMIC) for layer in layers):
        yield Finding(
            "nothing is int8",
            "error",
            f"nothing is quantized: none of {_count(layers)} multiplies integers",
            "Quantize weights and activations (static quantization), or keep the float32 file.",
        )


def _is_broken(scale: np.ndarray, integers: np.ndarray | None) -> bool:
    if not np.isfinite(scale).all() or (scale < 0).any():
        return True
    # A channel of nothing but zeros may have any scale.
    return bool((scale == 0).any()) and (integers is None or bool(scale.size == 1))


def _layers(layers: Sequence[FileLayer]) -> Iterator[Finding]:
    """What layers have in common, each kind once."""
    for kind, severity, test, message, remedy in _KINDS:
        matches = [layer for layer in layers if test(layer)]
        if not matches:
            continue
        names = tuple(layer.name for layer in matches)
        share = share_of(matches, layers)
        yield Finding(kind, severity, message.format(_count(matches)), remedy, names, share)
    for reason in dict.fromkeys(layer.obstacle for layer in layers if layer.obstacle):
        matches = [layer for layer in layers if layer.obstacle == reason]
        yield Finding(
            "integers without an int8 kernel",
            "warning",
            f"int8 weights that are executed in float32 in {_count(matches)}: {reason}",
            "Quantize what they read and write as well, each with one scale.",
            tuple(layer.name for layer in matches),
            share_of(matches, layers),
        )


def _count(layers: Sequence[FileLayer]) -> str:
    return "1 layer" if len(layers) == 1 else f"{len(layers):,} layers"


def _saturates(layer: FileLayer) -> bool:
    if layer.weights is None or layer.weights.dtype != np.int8 or layer.exact or layer.shared:
        return False
    if layer.precision not in (INT8, DYNAMIC):
        return False
    return leave_16_bits(layer.weights, layer.groups)


_KINDS: tuple[tuple[str, Severity, Callable[[FileLayer], bool], str, str], ...] = (
    (
        "per-tensor depthwise",
        "warning",
        lambda layer: layer.depthwise and layer.scales == 1,
        "one weight scale for all channels in {} that are depthwise: channels differ much in size",
        "Quantize weights per channel (per_channel=True).",
    ),
    (
        "saturating weights",
        "warning",
        _saturates,
        "full-range weights in {}: on x86 CPUs without VNNI (AVX2, older AVX-512) pairs of their "
        "products can leave 16 bits, which saturates",
        "Use 7-bit weights (reduce_range=True), or session.x64quantprecision=1 on such CPUs, which "
        "is slower; ptqbench gate measures what saturates.",
    ),
    (
        "signed activations",
        "warning",
        lambda layer: layer.precision == INT8 and layer.shared,
        "signed activations (s8) with several readers around {}: ONNX Runtime executes that in "
        "float32 on x86",
        "Quantize with u8 activations (activation_type=QuantType.QUInt8).",
    ),
    (
        "signed operators",
        "warning",
        lambda layer: layer.precision == INT8 and layer.exact and layer.signed,
        "s8 times s8 in {}, for which ONNX Runtime has slow kernels on x86",
        "Quantize with u8 activations (activation_type=QuantType.QUInt8).",
    ),
    (
        "asymmetric weights",
        "warning",
        lambda layer: layer.weights is not None and layer.asymmetric,
        "weights with zero points in {}, which the fastest kernels do not have",
        "Quantize weights symmetrically (WeightSymmetric=True).",
    ),
    (
        "float layers",
        "warning",
        lambda layer: layer.precision == FLOAT,
        "float32 in {}",
        "Look at what the tool was told to quantize; the first and the last layer may be meant.",
    ),
    (
        "dynamic quantization",
        "note",
        lambda layer: layer.precision == DYNAMIC,
        "ranges that are determined while running in {}, which takes time",
        "Calibrate, and quantize statically.",
    ),
)


def _operators(view: OnnxView) -> Iterator[Finding]:
    """Operators that are executed in float32 between conversions, or behind the last one."""
    islands: dict[str, list[str]] = {}
    tail = []
    for node in view.nodes:
        if node.op_type in _KERNELS or not _reads_dequantized(view, node):
            continue
        if all(name in view.outputs for name in node.output):
            tail.append(node)
        else:
            islands.setdefault(node.op_type, []).append(_label(node))
    norms = [_label(node) for node in view.nodes if node.op_type == "BatchNormalization"]
    if islands:
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in islands.items())
        yield Finding(
            "islands",
            "warning",
            f"no int8 kernel in ONNX Runtime for {counts}: executed in float32 between a "
            "dequantization and a quantization",
            "Export operators that have one (GlobalAveragePool for a mean, Sigmoid and Mul for "
            "SiLU), or keep what is around in float32 as well.",
            tuple(name for names in islands.values() for name in names),
        )
    if norms:
        yield Finding(
            "BatchNorm",
            "warning",
            f"BatchNorms that are left: {len(norms)}",
            "Fold them before quantizing (quant_pre_process).",
            tuple(norms),
        )
    tail += [node for node in view.nodes if node.op_type == "Softmax" and _ends(view, node)]
    if tail:
        kinds = ", ".join(dict.fromkeys(node.op_type for node in tail))
        yield Finding(
            "float tail",
            "note",
            f"a float32 end: {kinds}",
            "Nothing, if the application wants it so: it costs little.",
            tuple(_label(node) for node in tail),
        )


def _ends(view: OnnxView, node: onnx.NodeProto) -> bool:
    return node.output[0] in view.outputs


def _reads_dequantized(view: OnnxView, node: onnx.NodeProto) -> bool:
    sources = [view.source(name) for name in node.input if name and name not in view.values]
    return any(source is not None and source.op_type == DEQUANTIZE for source in sources)


def _label(node: onnx.NodeProto) -> str:
    return str(node.name or node.output[0])


def sentence(finding: Finding) -> str:
    """A finding in a sentence or two, with the first places."""
    text: str = finding.message[0].upper() + finding.message[1:]
    return f"{text} ({first_few(list(finding.places))})." if finding.places else f"{text}."
