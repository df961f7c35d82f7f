"""What TorchScript calls operators, and which role each has."""

from __future__ import annotations

from ptqbench.backends.graph import Role

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
"""Linear layers if one factor is a parameter; attention multiplies activations."""
_PREPACKED = ("prepacked::", "mkldnn_prepacked::", "mkldnn::")
BATCH_NORMS = frozenset(
    f"aten::{name}"
    for name in ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training")
)
_OBSERVERS = frozenset({"aten::aminmax", "aten::_aminmax", "aten::histc", "aten::histogram"})
_FAKE_QUANT = ("aten::fake_quant", "aten::fused_moving_avg_obs", "quantized::fake")
_RELUS = frozenset({"aten::relu", "aten::relu_"})
_RELU6S = frozenset(
    {
        *("quantized::relu6", "aten::relu6", "aten::relu6_"),
        *("aten::hardtanh", "aten::hardtanh_", "aten::clamp", "aten::clamp_"),
    }
)
_CONVERSIONS = frozenset({"aten::dequantize", "aten::quantize_per_tensor"})
_EXACT = {
    **dict.fromkeys(FLOAT_LAYERS, Role.FLOAT_LAYER),
    **dict.fromkeys(BATCH_NORMS, Role.BATCH_NORM),
    **dict.fromkeys(_OBSERVERS, Role.OBSERVER),
    **dict.fromkeys(_RELUS, Role.RELU),
    **dict.fromkeys(_RELU6S, Role.RELU6),
    **dict.fromkeys(_CONVERSIONS, Role.CONVERSION),
}
_PREFIXES = (
    (_PREPACKED, Role.FLOAT_LAYER),
    (("quantized::batch_norm",), Role.BATCH_NORM),
    (_FAKE_QUANT, Role.OBSERVER),
)


def role_of(kind: str, *, integers: bool, weight: bool) -> Role:
    """The role of an operator.

    Args:
        kind: Qualified name, ``quantized::conv2d_relu``.
        integers: Whether it has packed integer weights.
        weight: Whether one of its factors is a constant float weight.
    """
    if integers:
        return Role.INT8_LAYER
    if kind in PRODUCTS:
        return Role.FLOAT_LAYER if weight else Role.OTHER
    if kind.startswith(_PACKED_LAYERS):
        return Role.FLOAT_LAYER
    if role := _EXACT.get(kind):
        return role
    return next((role for prefixes, role in _PREFIXES if kind.startswith(prefixes)), Role.OTHER)


def fused_activation(kind: str) -> str:
    """The activation that an int8 layer's kernel applies itself: ``relu``, ``relu6`` or none."""
    if "_relu6" in kind:
        return "relu6"
    return "relu" if "_relu" in kind else ""
