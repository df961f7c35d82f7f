"""What is rounded in an IR model, and where: followed through its graph once, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ptqbench.backends.openvino.ir_structure import IrNode
from ptqbench.inspection.ir_view import MOVES, IrView

GROUPED = ("GroupConvolution", "GroupConvolutionBackpropData")
LAYERS = ("Convolution", *GROUPED, "ConvolutionBackpropData", "MatMul")
_CARRIED = frozenset(
    {
        *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "AvgPool", "Concat", *MOVES),
        *("Interpolate", "StridedSlice", "Slice", "Split", "VariadicSplit", "ShuffleChannels"),
        *("DepthToSpace", "SpaceToDepth", "BatchToSpace", "SpaceToBatch", "Gather", "Tile"),
        *("Broadcast",),
    }
)
"""Operators that are executed on integers if what they read is rounded."""
_FUSED = frozenset(
    {
        *("ReLU", "Clamp", "PReLU", "Elu", "Sigmoid", "Swish", "HSwish", "HSigmoid", "Gelu"),
        *("Tanh", "Mish", "Sqrt", "Abs", "Add", "Subtract", "Multiply", "BatchNormInference"),
    }
)
"""Operators that become part of the layer in front."""
_SIGNED = -128 / 127
"""The lowest end over the highest one of values that are rounded to s8."""
_CLOSE = 0.002


@dataclass(frozen=True)
class IrRange:
    """How a value is rounded.

    Attributes:
        scales: Of a step: one, or one for each channel.
        zero_points: The integers that mean zero, from the lowest one.
        signed: Whether OpenVINO makes s8 of it, and not u8.
    """

    scales: np.ndarray
    zero_points: np.ndarray
    signed: bool

    @property
    def is_one(self) -> bool:
        """Whether all channels have the same scale and zero point."""
        return all(
            each.size == 1 or bool((each == each[0]).all())
            for each in (self.scales, self.zero_points)
        )


@dataclass(frozen=True)
class IrFlow:
    """What operators read and write, by their ``id``.

    Attributes:
        ranges: What values are rounded to, those that are only carried on included.
        constants: Operators that compute the same for every image.
        computed: Values of layers, with what becomes part of these.
        rounded_behind: Operators whose every reader rounds, after moving values perhaps.
    """

    ranges: dict[int, IrRange] = field(default_factory=dict)
    constants: set[int] = field(default_factory=set)
    computed: set[int] = field(default_factory=set)
    rounded_behind: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, view: IrView) -> IrFlow:
        """Follow the values of a model."""
        flow = cls()
        for node in view.nodes:
            flow._forward(view, node)
        for node in reversed(view.nodes):
            readers = view.after(node)
            if readers and all(
                reader.kind == "FakeQuantize"
                or (reader.kind in MOVES and id(reader) in flow.rounded_behind)
                for reader in readers
            ):
                flow.rounded_behind.add(id(node))
        return flow

    def _forward(self, view: IrView, node: IrNode) -> None:
        sources = [source for source, _ in node.sources]
        if node.kind in ("Const", "ShapeOf") or (
            sources and all(id(source) in self.constants for source in sources)
        ):
            self.constants.add(id(node))
            return
        value = range_of(view, node)
        if value is None and carries(node):
            value = self._carried(node, self.values(node))
        if value is not None:
            self.ranges[id(node)] = value
        follows = node.kind in _FUSED or node.kind in MOVES
        if node.kind in LAYERS or (
            follows and any(id(source) in self.computed for source in sources)
        ):
            self.computed.add(id(node))

    def values(self, node: IrNode) -> list[IrNode]:
        """The operators whose values an operator reads, but for constants."""
        return [source for source, _ in node.sources if id(source) not in self.constants]

    def _carried(self, node: IrNode, sources: Sequence[IrNode]) -> IrRange | None:
        ranges = [self.ranges.get(id(source)) for source in sources]
        known = [each for each in ranges if each is not None]
        if not known or len(known) < len(ranges):
            return None
        if node.kind != "Concat":
            return known[0]
        return IrRange(
            np.concatenate([each.scales for each in known]),
            np.concatenate([each.zero_points for each in known]),
            all(each.signed for each in known),
        )

    def is_island(self, node: IrNode) -> bool:
        """Whether an operator is executed in float32 between roundings.

        Some have no kernel for integers; the others have one, and get no integers.
        """
        if node.kind in LAYERS or node.kind in _FUSED or node.kind in ("FakeQuantize", "Convert"):
            return False
        values = self.values(node)
        if not values or id(node) in self.constants or id(node) not in self.rounded_behind:
            return False
        rounded = [id(value) in self.ranges for value in values]
        computed = any(id(value) in self.computed for value in values)
        if carries(node):
            return computed and not all(rounded)
        return computed or any(rounded)


def carries(node: IrNode) -> bool:
    """Whether an operator is executed on integers if what it reads is rounded.

    OpenVINO's low-precision transformations do not know the pools of PyTorch that round up.
    """
    return node.kind in _CARRIED and node.attributes.get("rounding_type") != "ceil_torch"


def range_of(view: IrView, node: IrNode | None) -> IrRange | None:
    """What a value is rounded to by the operator that writes it; None if it is not.

    That is one ``FakeQuantize``, or integers that are converted, shifted and multiplied.
    """
    if node is None:
        return None
    if node.kind == "FakeQuantize":
        return _rounding(view, node)
    if node.kind != "Multiply":
        return None
    scales = view.constant(view.source(node, 1))
    centred, zeros = view.source(node, 0), np.zeros(1)
    if centred is not None and centred.kind == "Subtract":
        shift = view.constant(view.source(centred, 1))
        centred = view.source(centred, 0)
        zeros = zeros if shift is None else shift
    if scales is None or centred is None or centred.kind != "Convert":
        return None
    integers = view.source(centred, 0)
    kind = "" if integers is None else integers.attributes.get("destination_type", "")
    if kind not in ("u8", "i8"):
        return None
    return IrRange(scales.reshape(-1), zeros.reshape(-1) + 128 * (kind == "i8"), kind == "i8")


def _rounding(view: IrView, node: IrNode) -> IrRange | None:
    low, high = (view.constant(view.source(node, place)) for place in (3, 4))
    steps = int(node.attributes.get("levels", 0)) - 1
    if low is None or high is None or not 1 <= steps <= 255:
        return None
    low, high = low.reshape(-1).astype(np.float64), high.reshape(-1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = (high - low) / steps
        zeros = np.round(-low / scales)
        balance = low / high
        signed = bool((np.abs(balance - (_SIGNED if steps == 255 else -1)) < _CLOSE).all())
    return IrRange(scales, zeros, signed)
