"""Models without memory: names and shapes, to be compared or filled from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILLS = frozenset({"normal_", "uniform_", "trunc_normal_", "fill_", "zero_"})


class _NoInitialisation(TorchFunctionMode):
    """Leaves out what fills tensors.

    On the ``meta`` device it would do nothing either, but the first random fill there
    imports torch's decompositions and SymPy, which takes seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """Build modules on the ``meta`` device: no memory, no random numbers."""
    with torch.device("meta"), _NoInitialisation():
        yield
