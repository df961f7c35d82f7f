"""The operators of TorchScript graphs, and which of them are layers, int8 or float."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ptqbench.backends.torch_engines.packed_weights import PackedWeights

_PACKED_LAYERS = ("quantized::conv", "quantized::linear")
"""int8 unless what they packed is half precision."""
FLOAT_LAYERS = frozenset(
    f"aten::{name}"
    for name in (
        *("_convolution", "_convolution_mode", "convolution", "mkldnn_convolution"),
        *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
        *("linear", "addmm", "mkldnn_linear"),
    )
)
PRODUCTS = frozenset({"aten::mm", "aten::matmul"})
"""Linear layers where one factor is a parameter; attention multiplies activations."""
_PREPACKED = ("prepacked::", "mkldnn_prepacked::", "mkldnn::")
_BATCH_NORMS = frozenset(
    f"aten::{name}"
    for name in ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training")
)
_OBSERVERS = ("aten::aminmax", "aten::_aminmax", "aten::histc", "aten::histogram")
_FAKE_QUANT = ("aten::fake_quant", "aten::fused_moving_avg_obs", "quantized::fake")
RELUS = frozenset({"aten::relu", "aten::relu_"})
RELU6S = frozenset(
    {
        *("quantized::relu6", "aten::relu6", "aten::relu6_"),
        *("aten::hardtanh", "aten::hardtanh_", "aten::clamp", "aten::clamp_"),
    }
)


@dataclass(frozen=True)
class Operator:
    """One operator of the graph.

    Attributes:
        kind: Qualified name, ``quantized::conv2d_relu``.
        value: Name of its (first) output in the graph.
        inputs: Names of the values that it reads, lists spelled out.
        path: Module path of its parameters, where the graph still has one; else empty.
        scale: Output scale, where the operator quantizes its output.
        zero_point: Output zero point, likewise.
        packed: Weights of an int8 layer.
        weight: Weights of a float layer, if they are constant.
        bias: Bias of a float layer, likewise.
    """

    kind: str
    value: str
    inputs: tuple[str, ...]
    path: str = ""
    scale: float | None = None
    zero_point: int | None = None
    packed: PackedWeights | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None

    @property
    def label(self) -> str:
        """What to call it where it has no better name."""
        return self.path or f"{self.kind} %{self.value}"

    @property
    def is_int8_layer(self) -> bool:
        """Whether it is an int8 convolution or linear layer."""
        return self.packed is not None

    @property
    def is_float_layer(self) -> bool:
        """Whether it is a float convolution or linear layer."""
        if self.kind in PRODUCTS:
            return self.weight is not None
        if self.kind.startswith(_PACKED_LAYERS):
            return self.packed is None
        return self.kind in FLOAT_LAYERS or self.kind.startswith(_PREPACKED)

    @property
    def is_batch_norm(self) -> bool:
        """Whether it is a BatchNorm, in float or in int8."""
        return self.kind in _BATCH_NORMS or self.kind.startswith("quantized::batch_norm")

    @property
    def is_observer(self) -> bool:
        """Whether it belongs to an observer or fakes quantization."""
        return self.kind in _OBSERVERS or self.kind.startswith(_FAKE_QUANT)

    @property
    def has_default_range(self) -> bool:
        """Whether scale and zero point are those of an observer that saw nothing."""
        return self.scale == 1.0 and self.zero_point == 0
