"""The convolutions and linear layers of a file, and how each is quantized in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

INT8, DYNAMIC, WEIGHTS, FLOAT = "int8", "int8, dynamic", "int8 weights only", "float32"
"""Precisions: integers times integers, with ranges from calibration or determined while running;
integers that are dequantized first; neither."""


@dataclass(frozen=True)
class FileLayer:
    """A layer as a file has it.

    Attributes:
        name: Module path in the name of its weights, or the name of its node.
        kind: ``Conv``, ``ConvTranspose``, ``Gemm`` or ``MatMul``.
        precision: `INT8`, `DYNAMIC`, `WEIGHTS` or `FLOAT`.
        multiply_adds: For one image; None if its shapes are not known.
        depthwise: Whether each channel is convolved alone.
        groups: Of a convolution, else 1.
        weights: Integers ``O×I×…``; None if the file has none.
        scales: Number of scales of the weights; 0 without integers.
        asymmetric: Whether zero points of the weights are not in the middle.
        signed: Whether it reads s8.
        exact: Whether no kernel adds its products in 16 bits, whatever its weights are.
        shared: Whether s8 that it reads or writes has further readers.
        obstacle: Why integers are dequantized first; empty if they are not.
    """

    name: str
    kind: str
    precision: str
    multiply_adds: int | None
    depthwise: bool
    groups: int
    weights: np.ndarray | None
    scales: int = 0
    asymmetric: bool = False
    signed: bool = False
    exact: bool = False
    shared: bool = False
    obstacle: str = ""


def share_of(layers: Iterable[FileLayer], every: Iterable[FileLayer]) -> float | None:
    """The share of all multiply-adds that some layers do; None if some are not known."""
    total = [layer.multiply_adds for layer in every]
    part = [layer.multiply_adds for layer in layers]
    if None in total or not any(total):
        return None
    return sum(filter(None, part)) / sum(filter(None, total))
