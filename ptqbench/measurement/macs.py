"""Multiply-adds of a float model by layer, and how many of them an artifact does in int8.

Counted while the model runs once, with torch's own formulas, from the shapes of what its
operators are called with, so that layers inside functions count as well (attention takes its
weights as arguments). ``torch.utils.flop_counter.FlopCounterMode`` itself does not tell which
parameter an operator multiplies by, and entering it imports the compiler, which takes seconds.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ptqbench.quantization.canonical.shared_layers import CALL

_aten = torch.ops.aten
_ATTENTION = flop_registry[_aten._scaled_dot_product_flash_attention]
_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: _ATTENTION,
    _aten._scaled_dot_product_fused_attention_overrideable: _ATTENTION,
    # Unlike matrices, vectors are missing there: each factor of the matrix is used once.
    _aten.mv: lambda matrix, *_, **__: 2 * matrix.numel(),
    _aten.dot: lambda left, *_, **__: 2 * left.numel(),
    _aten.addmv: lambda _, matrix, *__, **___: 2 * matrix.numel(),
}
"""Floating-point operations, two per multiply-add, by operator."""


@dataclass(frozen=True)
class Macs:
    """Multiply-adds that one image takes.

    Attributes:
        layers: Multiplications by a parameter, by the module path that a float model's graph
            has for it; a module that runs twice counts twice.
        products: Multiplications of activations with one another: attention.
    """

    layers: Mapping[str, int]
    products: int

    @property
    def total(self) -> int:
        """All multiply-adds."""
        return sum(self.layers.values()) + self.products

    def share(self, names: Iterable[str]) -> float | None:
        """The share of all multiply-adds that these layers do, 0 to 1.

        Args:
            names: Module paths; one that is not a layer adds nothing.

        Returns:
            None if the model does not multiply at all.
        """
        # The calls of a shared layer may be layers of their own, below its path.
        inside = sum(self.layers.get(path, 0) for path in {n.partition(CALL)[0] for n in names})
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
        """What the first call counted; if there was none, the model is called with ``example``."""
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
    """Finds the parameter that a tensor is, or is a view of, by its address."""

    def __init__(self, model: nn.Module) -> None:
        parameters = [
            (parameter.data_ptr(), parameter.nbytes, name.removesuffix(".weight"))
            for name, parameter in model.named_parameters()
            if parameter.dim() > 1
        ]
        self._parameters = sorted(parameters)
        self._starts = [start for start, _, _ in self._parameters]

    def name(self, tensor: Tensor) -> str | None:
        """Path of the module, as graphs have it; None if it is not a parameter."""
        address = tensor.data_ptr()
        place = bisect.bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        start, size, name = self._parameters[place]
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
        """False: to be left out of compilation would import the compiler."""
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
            with self:  # tensors made in inference mode bring whole operators here
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        output = func(*args, **kwargs)
        amount = formula(*args, **kwargs, out_val=output) // 2
        names = (self._owners.name(arg) for arg in args if isinstance(arg, Tensor))
        owner = next((name for name in names if name is not None), None)
        if owner is None:
            self.products += amount
        else:
            self.layers[owner] += amount
        return output
