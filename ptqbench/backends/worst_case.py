"""Does a runtime saturate on this CPU: layers with worst-case integers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

_SIZE = 16
_STEPS = 120
"""Output of the largest true sum, in steps above the zero point."""
_ZERO = 128
LayerOutputs: TypeAlias = "Callable[[np.ndarray, int, float, int], np.ndarray]"
"""Runs a layer on inputs that are all 255: int8 weights ``O×I×K×K`` of a convolution or ``O×I`` of
a linear layer, groups, scale and zero point of the output to one integer output of each channel."""


@functools.cache
def worst_shares(layer_outputs: LayerOutputs) -> Mapping[str, float]:
    """Share of its true value that the worst output of each kind of layer comes out at.

    All inputs are 255, all weights of an output channel 127 or −127: nothing is larger.
    1 is exact; 0.5 is what sums in 16 bits give.

    Args:
        layer_outputs: Of the runtime.

    Returns:
        Shares of ``convolution``, ``depthwise convolution`` and ``linear``.
    """
    return {
        "convolution": _share(layer_outputs, (_SIZE, _SIZE, 3, 3), 1),
        "depthwise convolution": _share(layer_outputs, (_SIZE, 1, 3, 3), _SIZE),
        "linear": _share(layer_outputs, (_SIZE, 4 * _SIZE), 1),
    }


def _share(layer_outputs: LayerOutputs, shape: tuple[int, ...], groups: int) -> float:
    """Smallest share of the true value, of all output channels; 1 within a rounding step."""
    weights = np.full(shape, 127, np.int8)
    weights[1::2] = -127
    largest = 255 * 127 * int(np.prod(shape[1:]))
    outputs = layer_outputs(weights, groups, largest / _STEPS, _ZERO)
    true = np.where(np.arange(shape[0]) % 2 == 0, _STEPS, -_STEPS)
    actual = outputs - _ZERO
    share = np.where(np.abs(actual - true) <= 1, 1.0, actual / true)
    return float(share.min())
