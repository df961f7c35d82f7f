"""The shipped model factories: torchvision's classifiers by their torchvision names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ptqbench.models.torchvision_import import import_torchvision
from ptqbench.registry import Registry

_tv = import_torchvision().models


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


def _register(
    name: str,
    builder: Callable[..., nn.Module],
    quantizable: Callable[..., nn.Module] | None = None,
) -> None:
    def make(num_classes: int) -> nn.Module:
        return builder(weights=None, num_classes=num_classes)

    def make_quantizable(num_classes: int) -> nn.Module:
        assert quantizable is not None
        return quantizable(weights=None, quantize=False, num_classes=num_classes)

    MODELS.add(name, ModelSpec(name, make, make_quantizable if quantizable else None))


_register("resnet18", _tv.resnet18, _tv.quantization.resnet18)
_register("mobilenet_v2", _tv.mobilenet_v2, _tv.quantization.mobilenet_v2)
_register("mobilenet_v3_large", _tv.mobilenet_v3_large, _tv.quantization.mobilenet_v3_large)
_register("shufflenet_v2_x1_0", _tv.shufflenet_v2_x1_0, _tv.quantization.shufflenet_v2_x1_0)
_register("squeezenet1_1", _tv.squeezenet1_1)
_register("efficientnet_b0", _tv.efficientnet_b0)
