"""Custom models as they are known before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ptqbench.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CustomModel:
    """A factory that a user has registered.

    Attributes:
        name: Registered name, or ``module:function`` if it was named like that.
        factory: Called as ``factory(num_classes=N)``.
        origin: Where it is defined, ``nets.py, line 12``.
        num_classes: Default of its parameter; None if it has none.
        input_size: Standard input ``(3, H, W)``.
        fixed_input: Whether the model accepts no other height and width.
        quantizable: Factory of the same model with the same state-dict keys, with stubs and
            ``FloatFunctional`` for the eager flow; None if there is none.
        preprocessing: Settings of a sidecar that hold where the weights have none.
        note: What readers of a report should know about the model; empty: nothing.
    """

    name: str
    factory: Callable[..., nn.Module]
    origin: str
    num_classes: int | None = None
    input_size: tuple[int, int, int] = (3, 224, 224)
    fixed_input: bool = False
    quantizable: Callable[..., nn.Module] | None = None
    preprocessing: Mapping[str, object] = field(default_factory=dict)
    note: str = ""


CUSTOM_MODELS: Registry[CustomModel] = Registry("model")
