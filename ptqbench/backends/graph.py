"""What a model is made of, in the same words for every runtime.

A backend reads an artifact into a :class:`Graph`. Measurements look at roles, integer
weights and scales; what a runtime calls an operator only serves to name it in messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Role(StrEnum):
    """What an operator is, whatever its runtime calls it.

    ``RELU`` and ``RELU6`` are activations on their own, not fused into a layer.
    ``CONVERSION`` quantizes or dequantizes.
    """

    INT8_LAYER = "int8 layer"
    FLOAT_LAYER = "float layer"
    BATCH_NORM = "BatchNorm"
    RELU = "relu"
    RELU6 = "relu6"
    CONVERSION = "conversion"
    OBSERVER = "observer"
    OTHER = "other"


@dataclass(frozen=True)
class IntegerWeights:
    """Weights of an int8 layer, with the geometry that they are applied in.

    Attributes:
        integers: int8, ``C_out×C_in/groups×…`` with the size of the kernel for a convolution,
            ``C_out×C_in`` for a linear layer.
        scales: float64, one per output channel, or one.
        zero_points: int64, likewise.
        per_channel: Whether every output channel has a scale of its own.
        bias: float32 ``C_out``, or None.
        stride: Of a convolution, as padding and dilation; empty for a linear layer.
        padding: See ``stride``.
        dilation: See ``stride``.
        groups: Of a convolution; 1 for a linear layer.
        transposed: Whether it is a transposed convolution.
        exact: Whether kernels for its types of operands add in 32 bits on every CPU.
        bias_steps: float64 ``C_out``: what the bias is a multiple of, if it is stored as integers.
    """

    integers: Tensor
    scales: Tensor
    zero_points: Tensor
    per_channel: bool
    bias: Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    exact: bool = False
    bias_steps: Tensor | None = None

    @property
    def centred(self) -> Tensor:
        """The integers less their zero points, int64."""
        shape = (-1,) + (1,) * (self.integers.dim() - 1)
        return self.integers.long() - self.zero_points.view(shape)


@dataclass(frozen=True)
class Operator:
    """One operator of a graph.

    Attributes:
        kind: What the runtime calls it, for messages.
        role: What it is.
        value: Name of its (first) output in the graph.
        inputs: Names of the values that it reads, lists spelled out.
        path: Module path of its parameters if the graph has one, else empty.
        scale: Output scale if the operator quantizes its output.
        zero_point: Output zero point, likewise.
        lowest: The lowest integer of its output: 0, or −128 if that is signed.
        integers: Weights of an int8 layer.
        weight: Weights of a float layer, or scales of a BatchNorm, if they are constant.
        bias: Bias of a float layer, likewise.
        activation: Activation fused into a layer: ``relu``, ``relu6`` or empty.
        kernel: Kernel that executes it if the runtime tells, else empty.
        precision: Precision that it is executed in if the runtime tells, else empty.
        obstacle: Why a layer that the file quantizes is executed in float, if that can be told.
    """

    kind: str
    role: Role
    value: str
    inputs: tuple[str, ...]
    path: str = ""
    scale: float | None = None
    zero_point: int | None = None
    integers: IntegerWeights | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    activation: str = ""
    kernel: str = ""
    precision: str = ""
    lowest: int = 0
    obstacle: str = ""

    @property
    def label(self) -> str:
        """Module path, or kind and output if the graph has lost it."""
        return self.path or f"{self.kind} %{self.value}"

    @property
    def is_int8_layer(self) -> bool:
        """Whether it is an int8 convolution or linear layer."""
        return self.role is Role.INT8_LAYER

    @property
    def is_float_layer(self) -> bool:
        """Whether it is a float convolution or linear layer."""
        return self.role is Role.FLOAT_LAYER

    @property
    def is_batch_norm(self) -> bool:
        """Whether it is a BatchNorm, in float or in int8."""
        return self.role is Role.BATCH_NORM

    @property
    def is_observer(self) -> bool:
        """Whether it belongs to an observer or fakes quantization."""
        return self.role is Role.OBSERVER

    @property
    def has_default_range(self) -> bool:
        """Whether scale and zero point are those of an observer that saw no data."""
        return self.scale == 1.0 and self.zero_point == 0


@dataclass(frozen=True)
class Graph:
    """The operators of a model in execution order.

    Attributes:
        operators: All operators, including those in branches.
        modules_left: Paths of observer modules if the file still has modules.
    """

    operators: tuple[Operator, ...]
    modules_left: tuple[str, ...] = ()

    @cached_property
    def int8_layers(self) -> tuple[Operator, ...]:
        """int8 convolutions and linear layers."""
        return tuple(o for o in self.operators if o.is_int8_layer)

    @cached_property
    def float_layers(self) -> tuple[Operator, ...]:
        """Float convolutions and linear layers."""
        return tuple(o for o in self.operators if o.is_float_layer)

    @cached_property
    def _readers(self) -> dict[str, list[Operator]]:
        readers: dict[str, list[Operator]] = {}
        for operator in self.operators:
            for name in operator.inputs:
                readers.setdefault(name, []).append(operator)
        return readers

    @cached_property
    def _producers(self) -> dict[str, Operator]:
        return {operator.value: operator for operator in self.operators}

    def producer(self, operator: Operator) -> Operator | None:
        """The operator whose output is this one's first input, if there is one."""
        return self._producers.get(operator.inputs[0]) if operator.inputs else None

    def only_reader(self, operator: Operator) -> Operator | None:
        """The only operator that reads this one's output; None if several or none do."""
        readers = self._readers.get(operator.value, [])
        return readers[0] if len(readers) == 1 else None
