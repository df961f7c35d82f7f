"""Look at a file that only its runtime can read, without images and without running it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS, Recognition, recognize
from ptqbench.backends.graph import Graph, Operator, Role
from ptqbench.backends.integer_reference import leaves_int16
from ptqbench.errors import UserError
from ptqbench.inspection.file_inspection import FileInspection
from ptqbench.inspection.file_layers import FLOAT, INT8, WEIGHTS, FileLayer
from ptqbench.inspection.findings import (
    Finding,
    LayerKind,
    in_order,
    layer_findings,
    range_findings,
)

_REMEDY = "Look at what the runtime has int8 kernels for, or keep what is around in float32."


def inspect_graph(path: Path) -> FileInspection:
    """Read what a runtime makes of a file on this CPU; nothing in it is run.

    Args:
        path: A file of a runtime that is installed.

    Raises:
        UserError: It is missing, damaged, of no known kind, or its runtime is not installed.
    """
    file = recognize(path)
    backend = _reader(path, file)
    try:
        graph = backend.layers(path)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {backend.reason(error)}") from None
    layers = tuple(_layer(each) for each in graph.operators if _is_layer(each))
    operators = Counter(each.kind for each in graph.operators)
    return FileInspection(
        path=path,
        format=backend.runtime,
        version=None,
        size_bytes=sum(each.stat().st_size for each in backend.files(path)),
        producer=f"ptqbench for {file.info.backend}" if file.info is not None else "",
        layers=layers,
        operators=dict(operators.most_common()),
        findings=in_order(_findings(graph, layers, backend)),
    )


def _reader(path: Path, file: Recognition) -> Backend:
    """The backend that a file records, or the first of its runtime that runs here."""
    candidates = [each for each in BACKENDS if each.runtime == file.runtime]
    if (info := file.info) is not None:
        candidates.sort(key=lambda each: each.name != info.backend)
    reasons = [reason for each in candidates if (reason := each.availability()) is not None]
    if len(reasons) == len(candidates):
        raise UserError(f"{path} cannot be inspected without its runtime: {reasons[0]}.")
    return next(each for each in candidates if each.availability() is None)


def _is_layer(operator: Operator) -> bool:
    return operator.is_int8_layer or operator.is_float_layer


def _layer(operator: Operator) -> FileLayer:
    weights = operator.integers
    if weights is None:
        spatial = operator.weight is not None and operator.weight.dim() > 2
        # Integers in the file that the runtime executes in float32 have a reason.
        precision = WEIGHTS if operator.obstacle else FLOAT
        kind = "Conv" if spatial or "conv" in operator.kind.lower() else "Gemm"
        return FileLayer(
            operator.label, kind, precision, None, False, 1, None, obstacle=operator.obstacle
        )
    conv = "ConvTranspose" if weights.transposed else "Conv"
    return FileLayer(
        name=operator.label,
        kind=conv if weights.stride else "Gemm",
        precision=INT8,
        multiply_adds=None,
        depthwise=1 < weights.groups == len(weights.integers),
        groups=weights.groups,
        weights=weights.integers.numpy(),
        scales=len(weights.scales),
        asymmetric=bool(weights.zero_points.any()),
        exact=weights.exact,
    )


def _findings(graph: Graph, layers: Sequence[FileLayer], backend: Backend) -> Iterator[Finding]:
    yield from _numbers(graph)
    yield from layer_findings(layers, _kinds(graph, backend), _REMEDY)
    observers = [each.label for each in graph.operators if each.is_observer]
    if left := (*observers, *graph.modules_left):
        yield Finding(
            "observers",
            "error",
            f"observers or fake quantization that are left: {len(left)}",
            "Convert the model after calibrating, and save what comes out.",
            left,
        )
    norms = tuple(each.label for each in graph.operators if each.is_batch_norm)
    if norms:
        yield Finding(
            "BatchNorm",
            "warning",
            f"BatchNorms that are left: {len(norms)}",
            "Fuse them with the layer in front before quantizing.",
            norms,
        )


def _numbers(graph: Graph) -> Iterator[Finding]:
    """Scales that no calibration gives."""
    ranges = [each for each in graph.operators if each.scale is not None]
    broken = [o.label for o in ranges if not 0 < (o.scale or 0.0) < math.inf]
    broken += [
        each.label
        for each in graph.int8_layers
        if each.integers is not None and not bool(each.integers.scales.isfinite().all())
    ]
    default = [each.label for each in ranges if each.has_default_range]
    yield from range_findings(broken, default, len(ranges))


def _kinds(graph: Graph, backend: Backend) -> tuple[LayerKind, ...]:
    """What is looked for; which weights saturate depends on what the kernels add."""
    risky = {
        each.label
        for each in graph.operators
        if each.role is Role.INT8_LAYER
        and each.integers is not None
        and backend.sums_in_16_bits
        and leaves_int16(each.integers, backend.pairing)
    }
    return (
        LayerKind(
            "per-tensor depthwise",
            "warning",
            lambda layer: layer.depthwise and layer.scales == 1,
            "one weight scale for all channels in {} that are depthwise: channels differ much in "
            "size",
            "Quantize weights per channel.",
        ),
        LayerKind(
            "saturating weights",
            "warning",
            lambda layer: layer.name in risky,
            "full-range weights in {}: on x86 CPUs without VNNI (AVX2, older AVX-512) pairs of "
            "their products can leave 16 bits, which saturates",
            "Use 7-bit weights, or 7-bit activations (reduce_range); ptqbench gate measures what "
            "saturates.",
        ),
        LayerKind(
            "asymmetric weights",
            "warning",
            lambda layer: layer.asymmetric,
            "weights with zero points in {}, which the fastest kernels do not have",
            "Quantize weights symmetrically.",
        ),
        LayerKind(
            "float layers",
            "warning",
            lambda layer: layer.precision == FLOAT,
            "float32 in {}",
            "Look at what was told to be quantized; the first and the last layer may be meant.",
        ),
    )
