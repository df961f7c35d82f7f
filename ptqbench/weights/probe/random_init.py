"""Random parameters that depend on a seed and on their name, and on nothing else."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ptqbench.models.catalog import ModelSpec
from ptqbench.models.meta_init import initialised, skeleton, unfilled

_BATCH_NORMS = (nn.modules.batchnorm._NormBase,)
_NORMALS = (*_BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)

SHIFT = 1.5
"""Mean of the input of an activation, in deviations.

With centred inputs a ReLU discards half of the information, and after dozens of random layers all
pictures look alike. With a mean of some deviations it discards little, and features of deep
networks still tell pictures apart (the idea of deep kernel shaping, Martens et al. 2021,
arXiv:2110.01765); errors of int8 grow less, too.
"""

_CENTRE = 1.0
"""Added to the centre of depthwise filters, so that they blur pictures and do not scramble them."""

_CONSTANT = {"logit_scale": math.log(10)}
"""Parameters with a value that attention is designed for (Swin V2), by the end of their names."""

_DEVIATION = {"pos_embedding": 0.5, "class_token": 1.0, "relative_position_bias_table": 1.0}
"""Deviation of embeddings, which must not vanish next to tokens of deviation 1."""

_UNIFORM = {"layer_scale": (0.3, 0.7)}
"""Range of parameters that start at 1e-6 (ConvNeXt), where a block would not change the stream."""

_GAIN = (0.75, 1.25)
_SPREAD = 0.1
"""Scales and spread of shifts of normalisations: trained ones differ in every channel."""


def initial_model(spec: ModelSpec, num_classes: int, seed: int) -> nn.Module:
    """Build a model with random parameters, in evaluation mode.

    Weights of convolutions and linear layers are normal with a deviation that preserves the
    variance of their input, biases are zero, normalisations scale and shift a little. The head is
    drawn as well, to be replaced later.

    Args:
        spec: The architecture.
        num_classes: Number of outputs.
        seed: Seed; each tensor is drawn from it and the tensor's name.
    """
    model = _filled(skeleton(spec.factory, num_classes), seed)
    if unfilled(model):  # tensors that are not parameters, which the constructor fills
        model = _filled(initialised(spec.factory, num_classes), seed)
    return model.eval().requires_grad_(False)


def _filled(model: nn.Module, seed: int) -> nn.Module:
    state: OrderedDict[str, Tensor] = OrderedDict()
    # The versions of the modules, without which MNASNet refuses a state dict.
    state._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    for path, module in model.named_modules():
        for name, value in module._parameters.items():
            if value is not None:
                full = f"{path}.{name}" if path else name
                state[full] = _drawn(full, value.shape, module, seed)
        if isinstance(module, _BATCH_NORMS):
            state.update(_statistics(path, module.num_features))
    # Other buffers have values that the constructor computed.
    model.load_state_dict(state, strict=False, assign=True)
    return model


def is_drawn(shape: torch.Size) -> bool:
    """Whether a parameter of this shape is drawn and only scaled; smaller ones are stored."""
    return len(shape) >= 2


def _drawn(name: str, shape: torch.Size, module: nn.Module, seed: int) -> Tensor:
    last = name.rpartition(".")[2]
    if last in _CONSTANT:
        return torch.full(shape, _CONSTANT[last])
    if last in _UNIFORM:
        return _values(name, shape, seed, lambda rng, out: _uniform(rng, out, *_UNIFORM[last]))
    if last in _DEVIATION:
        return _values(name, shape, seed, lambda rng, out: _normal(rng, out, _DEVIATION[last]))
    if is_drawn(shape):
        fan_in = math.prod(shape[1:])
        weight = _values(name, shape, seed, lambda rng, out: _normal(rng, out, fan_in**-0.5))
        if isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == module.in_channels > 1:
            centre: tuple[slice | int, ...] = (
                slice(None),
                slice(None),
                *(size // 2 for size in shape[2:]),
            )
            weight[centre] += _CENTRE
        return weight
    if isinstance(module, _NORMALS) and last == "weight":
        return _values(name, shape, seed, lambda rng, out: _uniform(rng, out, *_GAIN))
    if isinstance(module, _NORMALS):
        shift = _values(name, shape, seed, lambda rng, out: _normal(rng, out, _SPREAD))
        return shift + SHIFT if isinstance(module, _BATCH_NORMS) else shift
    return torch.zeros(shape)


_Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def _values(
    name: str, shape: torch.Size, seed: int, fill: Callable[[np.random.Generator, _Array], None]
) -> Tensor:
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    # NumPy's generator, because torch's results depend on the instruction set.
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))
    out = np.empty(tuple(shape), np.float32)
    fill(rng, out)
    return torch.from_numpy(out)


def _normal(rng: np.random.Generator, out: _Array, deviation: float) -> None:
    rng.standard_normal(dtype=np.float32, out=out)
    out *= np.float32(deviation)


def _uniform(rng: np.random.Generator, out: _Array, low: float, high: float) -> None:
    rng.random(dtype=np.float32, out=out)
    out *= np.float32(high - low)
    out += np.float32(low)


def _statistics(path: str, channels: int) -> dict[str, Tensor]:
    return {
        f"{path}.running_mean": torch.zeros(channels),
        f"{path}.running_var": torch.ones(channels),
        f"{path}.num_batches_tracked": torch.tensor(0),
    }
