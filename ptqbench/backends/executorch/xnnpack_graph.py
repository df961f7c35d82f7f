"""Read the graph that XNNPACK executes, from what a ``.pte`` file has for its delegate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ptqbench.backends.executorch.et_flatbuffer import MalformedError, Table

NOTHING = 0xFFFFFFFF
"""The number of a value that is not there, such as that of a bias."""
_MAGIC, _HEADER_SIZE = b"XH00", 30
_ELSEWHERE = 2**64 - 1
_TYPES = (
    *("invalid", "fp32", "fp16", "qint8", "quint8", "qint32", "qcint8", "qcint32", "qcint4"),
    *("qdint8", "qbint4", "qpint8", "int32", "pfp32", "bf16"),
)
_ARRAYS = {
    "fp32": "<f4",
    "fp16": "<f2",
    "qint8": "<i1",
    "quint8": "<u1",
    "qcint8": "<i1",
    "qint32": "<i4",
    "qcint32": "<i4",
    "int32": "<i4",
}
_PER_CHANNEL, _PER_TENSOR = 1, 2
_OPERATORS = (
    *("Add", "FullyConnected", "Softmax", "Sigmoid", "StaticTranspose", "Clamp", "Conv2d", "Div"),
    *("StaticResizeBilinear2D", "StaticConstantPad", "AvgPooling2d", "Minimum", "DepthwiseConv2d"),
    *("MaxPooling2d", "Multiply", "Subtract", "Floor", "Convert", "GlobalAvgPooling2d"),
    *("StaticReshape", "ArgMaxPooling2d", "SquareRoot", "Ceiling", "Hardswish", "LeakyReLU"),
    *("Maximum", "Negate", "Square", "ELU", "Abs", "PReLU", "Concatenate2", "Concatenate3"),
    *("Concatenate4", "StaticSlice", "ScaledDotProductAttention", "BatchMatrixMultiply"),
    *("Concatenate5", "ConvTranspose2d", "ReciprocalSquareRoot", "Log", "Gelu", "Tanh", "Exp"),
    *("Sin", "Copy", "Cos"),
)
"""In the order of the schema."""
CONVOLUTIONS = ("Conv2d", "DepthwiseConv2d", "ConvTranspose2d")
LAYERS = (*CONVOLUTIONS, "FullyConnected")
_TWO = ("Add", "Div", "Minimum", "Multiply", "Subtract", "Maximum", "PReLU", "BatchMatrixMultiply")
_PLACES: Mapping[str, tuple[tuple[int, ...], int]] = {
    **dict.fromkeys(_TWO, ((0, 1), 2)),
    **dict.fromkeys(CONVOLUTIONS, ((15, 16, 17), 18)),
    **dict.fromkeys(("AvgPooling2d", "MaxPooling2d"), ((10,), 11)),
    **dict.fromkeys(("StaticTranspose", "StaticReshape", "StaticResizeBilinear2D"), ((2,), 3)),
    **dict.fromkeys(("StaticConstantPad", "StaticSlice"), ((3,), 4)),
    **dict.fromkeys(("LeakyReLU", "ELU"), ((1,), 2)),
    "FullyConnected": ((0, 1, 2), 3),
    "ArgMaxPooling2d": ((6,), 7),
    "ScaledDotProductAttention": ((0, 1, 2, 3, 4), 5),
    "Concatenate2": ((1, 2), 5),
    "Concatenate3": ((1, 2, 3), 5),
    "Concatenate4": ((1, 2, 3, 4), 5),
    "Concatenate5": ((1, 2, 3, 4, 7), 5),
}
"""Where operators have their inputs and their output; all others have one of each, 0 and 1."""
_WINDOW = (
    *("top", "right", "bottom", "left", "height", "width", "stride_height", "stride_width"),
    *("dilation_height", "dilation_width", "group_inputs", "group_outputs", "groups"),
)
"""Fields of convolutions and, as far as the dilation, of poolings."""
_LISTS = {
    "StaticTranspose": (1,),
    "StaticReshape": (1,),
    "StaticSlice": (1, 2),
    "StaticConstantPad": (0, 1),
}
"""Where operators have lists: an order, a shape, starts and sizes, amounts before and after."""
_FACTORS = {"LeakyReLU": 0, "ELU": 0, "StaticConstantPad": 2}


@dataclass(frozen=True)
class XnnValue:
    """A value of the graph.

    Attributes:
        datatype: ``fp32``, ``qint8`` (one scale), ``qcint8`` (one scale per channel), ….
        shape: Activations are ``N×H×W×C`` around convolutions.
        scales: One, or one per channel; empty for floats.
        zero_point: Of a value with one scale.
        axis: The dimension of the channels that have a scale each.
        constant: Its contents; None for activations.
        external: Its number among inputs and outputs of the delegate; `NOTHING` for others.
    """

    datatype: str
    shape: tuple[int, ...]
    scales: np.ndarray
    zero_point: int
    axis: int
    constant: np.ndarray | None
    external: int


@dataclass(frozen=True)
class XnnNode:
    """An operator of the graph.

    Attributes:
        kind: Name in the schema, without ``XNN``.
        inputs: Numbers of its inputs.
        output: Number of its output.
        limits: What its output is clamped to, lowest and highest.
        geometry: Of a convolution or pooling, by the names of `_WINDOW`.
        lists: As `_LISTS` has them.
        factor: A slope, or what is padded with.
        axis: That values are concatenated along.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    limits: tuple[float, float] = (-np.inf, np.inf)
    geometry: Mapping[str, int] | None = None
    lists: tuple[tuple[int, ...], ...] = ()
    factor: float = 0.0
    axis: int = 0


@dataclass(frozen=True)
class XnnGraph:
    """What one delegate executes.

    Attributes:
        values: By number.
        nodes: In order.
    """

    values: Mapping[int, XnnValue]
    nodes: tuple[XnnNode, ...]


def read_graph(payload: memoryview, data: Mapping[str, memoryview]) -> XnnGraph:
    """Read what a delegate executes.

    Args:
        payload: Of the delegate.
        data: Named contents of the file.

    Raises:
        MalformedError: It is damaged, or of a version that is not known.
    """
    if len(payload) < _HEADER_SIZE or payload[4:8] != _MAGIC:
        raise MalformedError("what it has for XNNPACK is of a version that is not known")
    start, size, constants = (int.from_bytes(payload[at : at + 4], "little") for at in (10, 14, 18))
    if start + size > len(payload) or constants > len(payload):
        raise MalformedError("what it has for XNNPACK ends too early")
    root = Table.root(payload[start : start + size])
    contents = [_content(each, payload[constants:], data) for each in root.tables(8)]
    values = {}
    for table in root.tables(2):
        number, value = _value(*table.union(0), contents)
        values[number] = value
    nodes = tuple(map(_node, root.tables(1)))
    for node in nodes:
        if not all(each in values for each in (*node.inputs, node.output)):
            raise MalformedError("what it has for XNNPACK reads values that are not there")
    return XnnGraph(values, nodes)


def _content(table: Table, constants: memoryview, data: Mapping[str, memoryview]) -> memoryview:
    """The contents of a constant."""
    offset, size, name = table.integer(0, "Q"), table.integer(1, "Q"), table.text(2)
    if name:
        if name not in data:
            raise MalformedError("weights are not in it")
        return data[name]
    if offset == _ELSEWHERE or offset + size > len(constants):
        raise MalformedError("it ends within its weights")
    return constants[offset : offset + size]


def _value(kind: int, table: Table | None, contents: list[memoryview]) -> tuple[int, XnnValue]:
    if table is None:
        raise MalformedError("a value for XNNPACK is missing")
    tensor = table.needed(0) if kind == 2 else table
    datatype = tensor.integer(0, "h")
    if not 0 <= datatype < len(_TYPES):
        raise MalformedError("a value for XNNPACK has no type that is known")
    name = _TYPES[datatype]
    shape = tuple(map(int, tensor.numbers(2, "<u4")))
    scales, zero_point, axis = np.zeros(0, np.float32), 0, 0
    if kind == 2:
        scheme, quantization = table.union(1)
        if quantization is not None and scheme == _PER_TENSOR:
            scales = np.array([quantization.real(0)], np.float32)
            zero_point = quantization.integer(1, "i")
        elif quantization is not None and scheme == _PER_CHANNEL:
            scales, axis = _channel_scales(quantization, contents)
    constant = _constant(tensor.integer(3), name, shape, contents)
    value = XnnValue(name, shape, scales, zero_point, axis, constant, tensor.integer(4))
    return tensor.integer(6), value


def _channel_scales(table: Table, contents: list[memoryview]) -> tuple[np.ndarray, int]:
    scales = table.numbers(0, "<f4")
    place, count = table.integer(2), table.integer(3)
    if not len(scales) and place:
        if place >= len(contents) or 4 * count > len(contents[place]):
            raise MalformedError("it ends within its scales")
        scales = np.frombuffer(contents[place], "<f4", count)
    return scales, table.integer(1, "i")


def _constant(
    place: int, datatype: str, shape: tuple[int, ...], contents: list[memoryview]
) -> np.ndarray | None:
    if not place or datatype not in _ARRAYS:
        return None
    if place >= len(contents):
        raise MalformedError("weights are not in it")
    count, dtype = int(np.prod(shape, dtype=np.int64)), np.dtype(_ARRAYS[datatype])
    if count * dtype.itemsize > len(contents[place]):
        raise MalformedError("it ends within its weights")
    return np.frombuffer(contents[place], dtype, count).reshape(shape)


def _node(table: Table) -> XnnNode:
    kind, fields = table.union(0)
    if fields is None or not 0 < kind <= len(_OPERATORS):
        raise MalformedError("it has an operator of XNNPACK that is not known")
    name = _OPERATORS[kind - 1]
    inputs, output = _PLACES.get(name, ((0,), 1))
    read = (fields.integer(number) for number in inputs)
    clamp = table.table(3)
    limits = (-np.inf, np.inf) if clamp is None else (clamp.real(0), clamp.real(1))
    geometry = None
    if name in CONVOLUTIONS or name in ("AvgPooling2d", "MaxPooling2d"):
        names = _WINDOW if name in CONVOLUTIONS else _WINDOW[:10]
        geometry = {field: fields.integer(i) for i, field in enumerate(names)}
    return XnnNode(
        name,
        tuple(number for number in read if number != NOTHING),
        fields.integer(output),
        limits,
        geometry,
        tuple(tuple(map(int, fields.numbers(i, "<u4"))) for i in _LISTS.get(name, ())),
        fields.real(_FACTORS[name]) if name in _FACTORS else 0.0,
        fields.integer(0) if name.startswith("Concatenate") else 0,
    )
