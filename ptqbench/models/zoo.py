"""The model factories: torchvision's classifiers by their torchvision names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ptqbench.models.torchvision_import import import_torchvision
from ptqbench.registry import Registry
from ptqbench.resources import SHIPPED

_tv = import_torchvision().models


_RESIZED = {
    **{"inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256},
    **{"efficientnet_b1": 240, "efficientnet_b2": 288, "efficientnet_b3": 300},
    **{"efficientnet_b4": 380, "efficientnet_b5": 456, "efficientnet_b6": 528},
    **{"efficientnet_b7": 600, "efficientnet_v2_s": 384, "efficientnet_v2_m": 480},
    "efficientnet_v2_l": 480,
}
"""Side of the standard input where it is not 224: what the architecture was published with."""

_WITHOUT_AUXILIARY = frozenset({"googlenet", "inception_v3"})
"""Have classifiers beside the last one that only training uses."""


@dataclass(frozen=True)
class ModelSpec:
    """A named factory of float32 classifiers.

    Attributes:
        name: Registered name.
        factory: ``num_classes -> module``, randomly initialised, plain torchvision.
        quantizable: The same architecture and state-dict keys, prepared for eager
            quantization (stubs and ``FloatFunctional``), or None if there is none.
        input_size: Standard input ``(C, H, W)``, at which latency is measured.
    """

    name: str
    factory: Callable[[int], nn.Module]
    quantizable: Callable[[int], nn.Module] | None = None
    input_size: tuple[int, int, int] = (3, 224, 224)


MODELS: Registry[ModelSpec] = Registry("model")


def _register(name: str, quantizable: bool) -> None:
    options: dict[str, Any] = {"weights": None}
    if name in _WITHOUT_AUXILIARY:
        options |= {"aux_logits": False, "init_weights": False}

    def make(num_classes: int) -> nn.Module:
        module: nn.Module = getattr(_tv, name)(num_classes=num_classes, **options)
        return module

    def make_quantizable(num_classes: int) -> nn.Module:
        builder = getattr(_tv.quantization, name)
        module: nn.Module = builder(num_classes=num_classes, quantize=False, **options)
        return module

    side = _RESIZED.get(name, 224)
    variant = make_quantizable if quantizable else None
    MODELS.add(name, ModelSpec(name, make, variant, (3, side, side)))


def _register_all() -> None:
    """Every classification builder of this torchvision; those with shipped weights first."""
    names = _tv.list_models(module=_tv)
    first = [name for name in SHIPPED if name in names]
    prefix = "quantized_"
    variants = {n.removeprefix(prefix) for n in _tv.list_models(module=_tv.quantization)}
    for name in [*first, *(name for name in names if name not in first)]:
        _register(name, name in variants)


_register_all()
