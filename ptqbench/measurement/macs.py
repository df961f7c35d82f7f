"""Multiply-adds of a float model by layer, and how many of them an artifact does in int8.

Counted while the model runs once, from the shapes of what its operators are called with, so
that layers inside functions count as well (attention takes its weights as arguments).
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten


@dataclass(frozen=True)
class Macs:
    """Multiply-adds that one image takes.

    Attributes:
        layers: Of what multiplies by a parameter, by the module path that a float model's
            graph has for it; a module that runs twice counts twice.
        products: Of what multiplies activations with one another: attention.
    """

    layers: Mapping[str, int]
    products: int

    @property
    def total(self) -> int:
        """All multiply-adds."""
        return sum(self.layers.values()) + self.products

    def share(self, names: Iterable[str]) -> float | None:
        """Which part of all multiply-adds is in these layers, 0 to 1.

        Args:
            names: Module paths; one that is no layer adds nothing.

        Returns:
            None if the model does not multiply at all.
        """
        inside = sum(self.layers.get(name, 0) for name in set(names))
        return inside / self.total if self.total else None


class CountedModel:
    """A float model that counts its multiply-adds in its first call, and is plain afterwards.

    Args:
        model: Evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._macs: Macs | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` of images ``N×C×H×W`` float32."""
        if self._macs is not None:
            logits: Tensor = self._model(images)
            return logits
        logits, self._macs = _counted(self._model, images)
        return logits

    def macs(self, example: Tensor) -> Macs:
        """What the first call counted; without one, the model is called with ``example``."""
        if self._macs is None:
            self(example)
        assert self._macs is not None
        return self._macs


def count_macs(model: nn.Module, example: Tensor) -> Macs:
    """Count the multiply-adds of one image.

    Convolutions, matrix products and attention count; additions, normalisations and
    activations do not, as usual.

    Args:
        model: Evaluation mode.
        example: Input ``N×C×H×W`` float32; its content does not matter.
    """
    return _counted(model, example)[1]


def _counted(model: nn.Module, images: Tensor) -> tuple[Tensor, Macs]:
    counter = _Counter(_Owners(model))
    with torch.inference_mode(False), torch.no_grad(), _attention_in_parts(), counter:
        logits: Tensor = model(images)
    batch = len(images)
    layers = {name: amount // batch for name, amount in counter.layers.items()}
    return logits, Macs(layers, counter.products // batch)


@contextmanager
def _attention_in_parts() -> Iterator[None]:
    """Run ``nn.MultiheadAttention`` as the operators that it consists of."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Owners:
    """Finds the parameter that a tensor is, or is a view of, by where it lies in memory."""

    def __init__(self, model: nn.Module) -> None:
        found = [
            (parameter.data_ptr(), parameter.nbytes, name.removesuffix(".weight"))
            for name, parameter in model.named_parameters()
            if parameter.dim() > 1
        ]
        self._found = sorted(found)
        self._starts = [start for start, _, _ in self._found]

    def name(self, tensor: Tensor) -> str | None:
        """Path of the module, as graphs have it; None if it is no parameter."""
        address = tensor.data_ptr()
        place = bisect.bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        start, size, name = self._found[place]
        return name if address < start + size else None


class _Counter(TorchDispatchMode):
    """Adds up the multiply-adds of the operators that run under it."""

    def __init__(self, owners: _Owners) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._owners = owners
        self.layers: Counter[str] = Counter()
        self.products = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: being left out of compilation would import the compiler, which takes seconds."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is None:
            with self:  # what tensors made in inference mode bring here whole
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        output = func(*args, **kwargs)
        amount, factors = formula(args, output)
        names = (self._owners.name(factor) for factor in factors)
        owner = next((name for name in names if name is not None), None)
        if owner is None:
            self.products += amount
        else:
            self.layers[owner] += amount
        return output


Formula = Callable[[Sequence[Any], Any], tuple[int, tuple[Tensor, ...]]]
"""From arguments and output to multiply-adds and the factors that may be parameters."""


def _convolution(args: Sequence[Any], output: Tensor) -> tuple[int, tuple[Tensor, ...]]:
    images, weight, transposed = args[0], args[1], args[6]
    outer = images if transposed else output
    return outer.numel() * math.prod(weight.shape[1:]), (weight,)


def _product(args: Sequence[Any], output: Tensor) -> tuple[int, tuple[Tensor, ...]]:
    left, right = args[0], args[1]
    return output.numel() * left.shape[-1], (left, right)


def _added_product(args: Sequence[Any], output: Tensor) -> tuple[int, tuple[Tensor, ...]]:
    return _product(args[1:], output)


def _attention(args: Sequence[Any], output: Any) -> tuple[int, tuple[Tensor, ...]]:
    query, key, value = args[:3]  # ... × length × width
    scores = math.prod(query.shape[:-1]) * key.shape[-2]
    return scores * (query.shape[-1] + value.shape[-1]), ()


_FORMULAS: dict[Any, Formula] = {
    _aten.convolution: _convolution,
    **dict.fromkeys((_aten.mm, _aten.bmm, _aten.mv, _aten.dot), _product),
    **dict.fromkeys((_aten.addmm, _aten.baddbmm, _aten.addmv), _added_product),
    **dict.fromkeys(
        (
            _aten._scaled_dot_product_flash_attention_for_cpu,
            _aten._scaled_dot_product_fused_attention_overrideable,
        ),
        _attention,
    ),
}
