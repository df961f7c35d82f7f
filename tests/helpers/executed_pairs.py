"""Which products kernels add in 16 bits: by trying all, and as a backend declares it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from ptqbench.backends.backend import Backend
from ptqbench.backends.worst_case import LayerOutputs
from ptqbench.quantization.pairing import layer_pairing, pairs_of

STEPS = 200


def executed_pairs(
    layer_outputs: LayerOutputs, shape: tuple[int, ...], groups: int
) -> set[tuple[int, int]]:
    """Positions of two weights whose products leave 16 bits together, by trying all."""
    pairs: set[tuple[int, int]] = set()
    positions = list(combinations(range(int(np.prod(shape[1:]))), 2))
    for start in range(0, len(positions), shape[0]):
        chunk = positions[start : start + shape[0]]
        weights = np.zeros(shape, np.int8)
        for channel, pair in enumerate(chunk):
            weights.reshape(shape[0], -1)[channel, list(pair)] = 127
        outputs = layer_outputs(weights, groups, 255 * 127 * 2 / STEPS, 0)
        pairs |= {pair for pair, output in zip(chunk, outputs, strict=False) if output < STEPS - 2}
    return pairs


def declared_pairs(backend: Backend, shape: tuple[int, ...], groups: int) -> set[tuple[int, int]]:
    """Positions of two weights whose products a backend says are added in 16 bits, here."""
    pairing = layer_pairing(backend.pairing, shape[0], groups)
    if pairing is None or not backend.saturates():
        return set()
    numbers = torch.arange(1, int(np.prod(shape[1:])) + 1).reshape(1, *shape[1:]).float()
    pairs = pairs_of(numbers, pairing)[0].long().tolist()
    return {(min(pair) - 1, max(pair) - 1) for pair in pairs if all(pair)}
