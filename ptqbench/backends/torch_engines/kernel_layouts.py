"""Which layout in memory some int8 kernels of torch take for granted, and how they get it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_CLAMPS = frozenset(
    {
        *(torch.clamp, Tensor.clamp, torch.clip, Tensor.clip, F.hardtanh, F.relu6),
        torch.ops.quantized.relu6,
    }
)
"""What runs QNNPACK's kernel for clamping; ReLU, hard-sigmoid and hard-swish have their own."""
_MEANS = frozenset({torch.mean, Tensor.mean})


class KernelLayouts(TorchFunctionMode):
    """While it is active, int8 kernels are called where they are right (torch 2.13 and before).

    * QNNPACK clamps a channels-last map, but gives its values in the order of a contiguous one.
      The map is copied to contiguous memory first.
    * The mean of a channels-last map of a single pixel cannot be made without the map's
      dimensions: ``required rank 4 tensor to use channels_last format``. They are removed behind
      it.

    Args:
        engine: torch quantized engine.
    """

    def __init__(self, engine: str) -> None:
        super().__init__()
        self._clamps = _CLAMPS if engine == "qnnpack" else frozenset()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if args and isinstance(args[0], Tensor) and args[0].is_quantized:
            if function in self._clamps:
                return function(args[0].contiguous(), *args[1:], **options)
            if function in _MEANS and args[0].dim() == 4:
                return _mean(*args, **options)
        return function(*args, **options)


def _mean(values: Tensor, dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    dims = (dim,) if isinstance(dim, int) else tuple(dim or ())
    if keepdim or not dims:
        return values.mean(dim, keepdim, **options) if dims else values.mean(**options)
    mean = values.mean(dims, True, **options)
    for each in sorted((d % values.dim() for d in dims), reverse=True):
        mean = mean.squeeze(each)
    return mean
