"""Does an engine saturate on this CPU: layers with worst-case integers."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.quantization.torch_warnings import known_deprecations_ignored

_SIZE = 16
_CHANNELS = 128
"""Of the depthwise convolution: above 100 groups the engine x86 uses fbgemm's kernels."""
_ZERO, _STEPS = 128, 120
"""Output zero point, and how many steps above it the largest true sum lies."""


@functools.cache
def probe_engine(engine: str) -> dict[str, float]:
    """Share of its true value that the worst output of each kind of layer comes out at.

    All inputs are 255, all weights of an output channel 127 or −128: nothing is larger.
    1 is exact; 0.5 is what sums in 16 bits give.

    Args:
        engine: torch quantized engine.

    Returns:
        Shares of ``convolution``, ``depthwise convolution`` and ``linear``.

    Raises:
        RuntimeError: The engine is missing.
    """
    with engine_set(engine), torch.inference_mode(), known_deprecations_ignored():
        return {
            "convolution": _convolution((_SIZE, _SIZE, 3, 3), groups=1),
            "depthwise convolution": _convolution((_CHANNELS, 1, 3, 3), groups=_CHANNELS),
            "linear": _linear(),
        }


def _full_range(shape: tuple[int, ...]) -> Tensor:
    """Weights: even output channels at 127, odd ones at −128."""
    integers = torch.full(shape, 127, dtype=torch.int8)
    integers[1::2] = -128
    return torch._make_per_tensor_quantized_tensor(integers, 1.0, 0)


def _all_255(shape: tuple[int, ...]) -> Tensor:
    return torch._make_per_tensor_quantized_tensor(
        torch.full(shape, 255, dtype=torch.uint8), 1.0, 0
    )


def _convolution(shape: tuple[int, int, int, int], groups: int) -> float:
    # Padded as networks are: fbgemm's depthwise kernels take nothing else.
    packed = torch.ops.quantized.conv2d_prepack(
        _full_range(shape), None, [1, 1], [1, 1], [1, 1], groups
    )
    scale = 255 * 128 * shape[1] * 9 / _STEPS
    images = _all_255((1, shape[1] * groups, 8, 8))
    output = torch.ops.quantized.conv2d(images, packed, scale, _ZERO).int_repr()
    inner = output[:, :, 1:-1, 1:-1]  # the border sees the padding too, and has smaller sums
    return _share(inner.movedim(1, -1).flatten(0, -2))


def _linear() -> float:
    features = 4 * _SIZE
    packed = torch.ops.quantized.linear_prepack(_full_range((_SIZE, features)), None)
    scale = 255 * 128 * features / _STEPS
    output = torch.ops.quantized.linear(_all_255((4, features)), packed, scale, _ZERO)
    return _share(output.int_repr())


def _share(output: Tensor) -> float:
    """Smallest share of the true value, of outputs ``N×C_out``; 1 within a rounding step."""
    actual = output.double() - _ZERO
    true = torch.full((output.shape[1],), _STEPS * 127 / 128, dtype=torch.float64)
    true[1::2] = -_STEPS
    share = torch.where((actual - true).abs() <= 1, 1.0, actual / true)
    return float(share.min())
