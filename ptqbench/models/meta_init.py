"""Build models without memory: names and shapes, to be compared or filled from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_KEEP = frozenset({"requires_grad_", "detach_", "share_memory_"})
"""Methods whose names end like in-place ones, but that leave the values alone."""


class _Unfilled(TorchFunctionMode):
    """Allocates empty tensors on the ``meta`` device, and skips what would fill them.

    Parameters are allocated empty and then filled with random numbers. Tensors that a constructor
    computes (the widths of a RegNet, the position indices of a Swin block) are small and needed
    with their values: they stay on the CPU. A fill passed on to the ``meta`` device would import
    torch's decompositions and SymPy, which takes seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            if kwargs.get("device") is None:
                kwargs = {**kwargs, "device": "meta"}
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and name not in _KEEP:
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, Tensor) and target.is_meta:
                return target
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """Build modules with parameters on the ``meta`` device: no memory, no random numbers.

    Small buffers that a constructor computes have values. A state dict assigned to such a module
    must contain every parameter.
    """
    with _Unfilled():
        yield


def skeleton(factory: Callable[[int], nn.Module], num_classes: int) -> nn.Module:
    """Build a model whose parameters are still to be assigned.

    Constructors that read the values of their parameters cannot run without them; such a model is
    initialised as usual.

    Args:
        factory: ``num_classes -> module``.
        num_classes: Number of outputs.
    """
    try:
        with without_memory():
            return factory(num_classes)
    except Exception:  # whatever a constructor says to parameters without values
        return initialised(factory, num_classes)


def initialised(factory: Callable[[int], nn.Module], num_classes: int) -> nn.Module:
    """Build an initialised model without changing the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        return factory(num_classes)


def unfilled(model: nn.Module) -> list[str]:
    """Names of the tensors that have no values yet, including plain attributes."""
    return [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name, value in (
            *module._parameters.items(),
            *module._buffers.items(),
            *_attributes(module),
        )
        if isinstance(value, Tensor) and value.is_meta
    ]


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(module).items() if isinstance(value, Tensor)]


def outputs_of(
    factory: Callable[[int], nn.Module], num_classes: int, input_size: Sequence[int]
) -> int | None:
    """Return the number of outputs of a model; None if it does not run without values.

    Args:
        factory: ``num_classes -> module``.
        num_classes: Number of outputs that is asked for.
        input_size: ``C×H×W``.
    """
    try:
        model = skeleton(factory, num_classes).to("meta").eval()
        with torch.inference_mode():
            return int(model(torch.empty(1, *input_size, device="meta")).shape[1])
    except Exception:  # whatever the code does with tensors that have no values
        return None


def shapes_of(factory: Callable[[int], nn.Module], num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's state dict by name, in its order."""
    model = skeleton(factory, num_classes)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}
