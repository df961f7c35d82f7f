"""Which full-range weights make pairs of products leave 16 bits, in numpy.

The rule ``patches`` of `quantization.pairing`, for a file that is looked at without torch;
`tests/inspection/test_inspect_onnx.py` holds both against each other.
"""

from __future__ import annotations

import numpy as np

_HIGHEST = 255
"""The largest u8 activation."""
_INT16 = 2**15


def leave_16_bits(integers: np.ndarray, groups: int) -> bool:
    """Whether two products of u8 activations and s8 weights that are added can leave 16 bits.

    Args:
        integers: int8 ``O×I×…`` of a convolution or ``O×I`` of a linear layer.
        groups: Of the convolution; depthwise convolutions are added in 32 bits.
    """
    if 1 < groups == len(integers):
        return False
    rows = np.moveaxis(integers, 1, -1).reshape(len(integers), -1).astype(np.int64)
    if rows.shape[1] % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
    pairs = rows.reshape(len(rows), -1, 2) * _HIGHEST
    most = pairs.clip(min=0).sum(-1).max(initial=0)
    least = pairs.clip(max=0).sum(-1).min(initial=0)
    return bool(most >= _INT16 or least < -_INT16)
