"""Which full-range weights make pairs of products leave 16 bits, in numpy.

Two rules of `quantization.pairing`, for a file that is looked at without torch;
`tests/inspection/test_inspect_onnx.py` holds both against each other.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

FilePairing: TypeAlias = Literal["patches", "groups"]
"""Of ONNX Runtime, and of OpenVINO."""
_HIGHEST = 255
"""The largest u8 activation."""
_INT16 = 2**15


def leave_16_bits(integers: np.ndarray, groups: int, pairing: FilePairing) -> bool:
    """Whether two products of u8 activations and s8 weights that are added can leave 16 bits.

    Args:
        integers: int8 ``O×I×…`` of a convolution or ``O×I`` of a linear layer.
        groups: Of the convolution; depthwise convolutions are added in 32 bits.
        pairing: Which products are added.
    """
    if 1 < groups == len(integers):
        return False
    rows = np.moveaxis(integers, 1, -1).astype(np.int64)
    if pairing == "patches" or groups > 1:
        rows = rows.reshape(len(integers), -1)
    if rows.shape[-1] % 2:
        rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, 1)])
    pairs = rows.reshape(-1, 2) * _HIGHEST
    most = pairs.clip(min=0).sum(-1).max(initial=0)
    least = pairs.clip(max=0).sum(-1).min(initial=0)
    return bool(most >= _INT16 or least < -_INT16)
