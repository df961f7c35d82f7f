"""A single layer under Inductor's operators, on inputs that are all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def layer_outputs(
    weights: np.ndarray, groups: int, scale: float, zero_point: int, value: int = 255
) -> np.ndarray:
    """Run one layer on inputs that are all the same.

    Args:
        weights: int8, ``O×I×K×K`` or ``O×I×K`` of a convolution or ``O×I`` of a linear layer.
        groups: Of the convolution.
        scale: Of the output, in units of the integer sum.
        zero_point: Of the output.
        value: The inputs, as u8.

    Returns:
        One output of each channel, as an integer ``O``.
    """
    operators, integers = torch.ops.onednn, torch.from_numpy(weights)
    scales = torch.ones(len(weights))
    zeros = torch.zeros(len(weights), dtype=torch.int64)
    sides = [size + 3 for size in weights.shape[2:]]
    images = torch.full((1, weights.shape[1] * groups, *sides), value, dtype=torch.uint8)
    output: tuple[Any, ...] = (scale, zero_point, torch.uint8, "none", [], "")
    if not sides:
        packed = operators.qlinear_prepack(integers, list(images.shape))
        result = operators.qlinear_pointwise(images, 1.0, 0, packed, scales, zeros, None, *output)
    else:
        ones, none = [1] * len(sides), [0] * len(sides)
        geometry = (ones, none, ones, groups)
        packed = operators.qconv_prepack(integers, scales, 1.0, 0, *geometry, list(images.shape))
        result = operators.qconv_pointwise(
            images, 1.0, 0, packed, scales, zeros, None, *geometry, *output
        )
    first: np.ndarray = result.reshape(len(weights), -1)[:, 0].numpy().astype(np.int64)
    return first
