"""What is wrong in an IR file, or slow under OpenVINO, or works on some CPUs only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ptqbench.backends.openvino.ir_structure import IrNode
from ptqbench.inspection.file_layers import FLOAT, FileLayer
from ptqbench.inspection.findings import (
    Finding,
    LayerKind,
    in_order,
    layer_findings,
    range_findings,
    saturates,
)
from ptqbench.inspection.ir_flow import IrFlow, range_of
from ptqbench.inspection.ir_view import IrView

_ENDS = ("SoftMax", "LogSoftmax")


def findings_of(view: IrView, flow: IrFlow, layers: Sequence[FileLayer]) -> tuple[Finding, ...]:
    """Return the findings of a file, the worst first."""
    remedy = "Quantize what they read as well, with one scale: quantize with nncf.quantize."
    return in_order(
        [
            *_numbers(view),
            *layer_findings(layers, _KINDS, remedy),
            *_operators(view, flow),
            *_half_floats(view),
        ]
    )


def _numbers(view: IrView) -> Iterator[Finding]:
    """Ranges and scales that no calibration gives."""
    broken, default, ranges = [], [], 0
    for node in view.nodes:
        if node.kind != "FakeQuantize":
            if node.kind == "Multiply" and _has_broken_scales(view, node):
                broken.append(node.name)
            continue
        ends = [view.constant(view.source(node, place)) for place in range(1, 5)]
        known = [end for end in ends if end is not None]
        if len(known) < len(ends):
            continue
        if any(not np.isfinite(end).all() for end in known) or _is_empty(known):
            broken.append(node.name)
        elif view.constant(view.source(node, 0)) is None and known[0].size == 1:
            ranges += 1
            if _is_default(view, node, known):
                default.append(node.name)
    yield from range_findings(broken, default, ranges)


def _is_empty(ends: Sequence[np.ndarray]) -> bool:
    """Whether the highest value of a range is not above the lowest one."""
    low, high, new_low, new_high = ends
    return bool((high <= low).all() or (new_high <= new_low).all())


def _is_default(view: IrView, node: IrNode, ends: Sequence[np.ndarray]) -> bool:
    """Whether a range has a scale of 1, and zero at its lowest or its middle integer."""
    integers = [reader.attributes.get("destination_type") for reader in view.after(node)]
    if {"u8", "i8"} & set(integers):  # of an ONNX model: the range is in what follows
        products = [
            product
            for convert in view.after(node)
            for back in view.after(convert)
            for product in _products(view, back)
        ]
        ranges = [range_of(view, product) for product in products]
        return any(
            each is not None
            and bool((each.scales == 1).all())
            and not (each.zero_points % 128).any()
            for each in ranges
        )
    low, high = float(ends[2].reshape(())), float(ends[3].reshape(()))
    return (low, high) in ((0.0, 255.0), (-128.0, 127.0))


def _products(view: IrView, convert: IrNode) -> Iterator[IrNode]:
    """The multiplications that make floats of integers, from the conversion in front."""
    for reader in view.after(convert):
        if reader.kind == "Multiply":
            yield reader
        elif reader.kind == "Subtract":
            yield from (each for each in view.after(reader) if each.kind == "Multiply")


def _has_broken_scales(view: IrView, node: IrNode) -> bool:
    """Whether integers are multiplied by what is no scale."""
    centred = view.source(node, 0)
    if centred is not None and centred.kind == "Subtract":
        centred = view.source(centred, 0)
    if centred is None or centred.kind != "Convert":
        return False
    integers = view.source(centred, 0)
    if integers is None or (integers.attributes.get("element_type") or "u8") not in ("i8", "u8"):
        return False
    scales = view.constant(view.source(node, 1))
    if scales is None or (integers.kind == "Convert" and range_of(view, node) is None):
        return False
    if not np.isfinite(scales).all() or bool((scales < 0).any()):
        return True
    # A channel of nothing but zeros may have any scale.
    return bool((scales == 0).any()) and bool(scales.size == 1)


_KINDS = (
    LayerKind(
        "per-tensor depthwise",
        "warning",
        lambda layer: layer.depthwise and layer.scales == 1,
        "one weight scale for all channels in {} that are depthwise: channels differ much in size",
        "Quantize weights per channel, as nncf.quantize does by default.",
    ),
    LayerKind(
        "saturating weights",
        "warning",
        lambda layer: saturates(layer, "groups"),
        "full-range weights in {}: on x86 CPUs without VNNI (AVX2, older AVX-512) pairs of their "
        "products can leave 16 bits, which saturates",
        "Use 7-bit weights (overflow_fix=OverflowFix.ENABLE in "
        "nncf.AdvancedQuantizationParameters) for such CPUs; ptqbench gate measures what "
        "saturates.",
    ),
    LayerKind(
        "asymmetric weights",
        "warning",
        lambda layer: layer.asymmetric,
        "weights with zero points, or as u8, in {}: OpenVINO executes them in float32",
        "Quantize weights symmetrically, as nncf.quantize does by default.",
    ),
    LayerKind(
        "float layers",
        "warning",
        lambda layer: layer.precision == FLOAT,
        "float32 in {}",
        "Look at what the tool was told to leave out (ignored_scope); the first and the last layer "
        "may be meant.",
    ),
)


def _operators(view: IrView, flow: IrFlow) -> Iterator[Finding]:
    """Operators that are executed in float32 between int8 ones, or behind the last one."""
    islands: dict[str, list[str]] = {}
    tail, norms = [], []
    for node in view.nodes:
        if node.kind == "BatchNormInference":
            norms.append(node.name)
        if node.kind in _ENDS and all(each.kind == "Result" for each in view.after(node)):
            tail.append(node)
        elif flow.is_island(node):
            islands.setdefault(node.kind, []).append(node.name)
    if islands:
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in islands.items())
        yield Finding(
            "islands",
            "warning",
            f"{counts} between a value that is rounded and one that is rounded again: OpenVINO "
            "executes them in float32",
            "Quantize what they read as well, use operators that have int8 kernels, or keep what "
            "is around in float32, too.",
            tuple(name for names in islands.values() for name in names),
        )
    if norms:
        yield Finding(
            "BatchNorm",
            "warning",
            f"BatchNorms that are left: {len(norms)}",
            "Fold them before quantizing, as openvino.convert_model does.",
            tuple(norms),
        )
    if tail:
        kinds = ", ".join(dict.fromkeys(node.kind for node in tail))
        yield Finding(
            "float tail",
            "note",
            f"a float32 end: {kinds}",
            "Nothing, if the application wants it so: it costs little.",
            tuple(node.name for node in tail),
        )


def _half_floats(view: IrView) -> Iterator[Finding]:
    """Constants that are stored as float16, as ``save_model`` does unless it is told."""
    places = [
        node.name
        for node in view.nodes
        if node.kind == "Const" and node.attributes.get("element_type") == "f16"
    ]
    if places:
        yield Finding(
            "float16 constants",
            "note",
            f"float constants that are stored as float16: {len(places)}",
            "Nothing, if float16 is exact enough; openvino.save_model(…, compress_to_fp16=False) "
            "keeps float32, which a float32 file has to be compared in.",
            tuple(places),
        )
