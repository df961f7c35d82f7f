"""What is wrong in an ONNX file, or slow under ONNX Runtime, or works on some CPUs only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ptqbench.inspection.file_layers import DYNAMIC, FLOAT, INT8, FileLayer
from ptqbench.inspection.findings import (
    Finding,
    LayerKind,
    in_order,
    layer_findings,
    range_findings,
    saturates,
)
from ptqbench.inspection.onnx_view import DEQUANTIZE, QUANTIZE, OnnxView

if TYPE_CHECKING:
    import onnx

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


def findings_of(view: OnnxView, layers: Sequence[FileLayer]) -> tuple[Finding, ...]:
    """Return the findings of a file, the worst first."""
    remedy = "Quantize what they read and write as well, each with one scale."
    return in_order([*_numbers(view), *layer_findings(layers, _KINDS, remedy), *_operators(view)])


def _numbers(view: OnnxView) -> Iterator[Finding]:
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
    yield from range_findings(broken, default, ranges)


def _is_broken(scale: np.ndarray, integers: np.ndarray | None) -> bool:
    if not np.isfinite(scale).all() or (scale < 0).any():
        return True
    # A channel of nothing but zeros may have any scale.
    return bool((scale == 0).any()) and (integers is None or bool(scale.size == 1))


_KINDS = (
    LayerKind(
        "per-tensor depthwise",
        "warning",
        lambda layer: layer.depthwise and layer.scales == 1,
        "one weight scale for all channels in {} that are depthwise: channels differ much in size",
        "Quantize weights per channel (per_channel=True).",
    ),
    LayerKind(
        "saturating weights",
        "warning",
        lambda layer: saturates(layer, "patches"),
        "full-range weights in {}: on x86 CPUs without VNNI (AVX2, older AVX-512) pairs of their "
        "products can leave 16 bits, which saturates",
        "Use 7-bit weights (reduce_range=True), or session.x64quantprecision=1 on such CPUs, which "
        "is slower; ptqbench gate measures what saturates.",
    ),
    LayerKind(
        "signed activations",
        "warning",
        lambda layer: layer.precision == INT8 and layer.shared,
        "signed activations (s8) with several readers around {}: ONNX Runtime executes that in "
        "float32 on x86",
        "Quantize with u8 activations (activation_type=QuantType.QUInt8).",
    ),
    LayerKind(
        "signed operators",
        "warning",
        lambda layer: layer.precision == INT8 and layer.exact and layer.signed,
        "s8 times s8 in {}, for which ONNX Runtime has slow kernels on x86",
        "Quantize with u8 activations (activation_type=QuantType.QUInt8).",
    ),
    LayerKind(
        "asymmetric weights",
        "warning",
        lambda layer: layer.weights is not None and layer.asymmetric,
        "weights with zero points in {}, which the fastest kernels do not have",
        "Quantize weights symmetrically (WeightSymmetric=True).",
    ),
    LayerKind(
        "float layers",
        "warning",
        lambda layer: layer.precision == FLOAT,
        "float32 in {}",
        "Look at what the tool was told to quantize; the first and the last layer may be meant.",
    ),
    LayerKind(
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
