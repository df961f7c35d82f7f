"""The model factories: torchvision's classifiers by their torchvision names, and a user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ptqbench.core.package_data import SHIPPED
from ptqbench.core.registry import Registry
from ptqbench.core.user_code import describe_error
from ptqbench.errors import UserError
from ptqbench.models.custom.spec import OWN, OwnModel
from ptqbench.models.import_torchvision import import_torchvision

_tv = import_torchvision().models

_SIDE = 224

_RESIZED = {
    **{"inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256},
    **{"efficientnet_b1": 240, "efficientnet_b2": 288, "efficientnet_b3": 300},
    **{"efficientnet_b4": 380, "efficientnet_b5": 456, "efficientnet_b6": 528},
    **{"efficientnet_b7": 600, "efficientnet_v2_s": 384, "efficientnet_v2_m": 480},
    "efficientnet_v2_l": 480,
}
"""Side of the standard input where it is not 224: what the architecture was published with."""

_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Classifiers beside the last one that only training uses."""


@dataclass(frozen=True)
class ModelSpec:
    """A named factory of float32 classifiers.

    Attributes:
        name: Registered name.
        factory: ``num_classes -> module``, randomly initialised, plain torchvision.
        quantizable: The same architecture and state-dict keys, prepared for eager
            quantization (stubs and ``FloatFunctional``), or None if there is none.
        input_size: Standard input ``(C, H, W)``, at which latency is measured.
        fixed_input: Whether the model takes no other height and width.
        training_only: Beginnings of the names of tensors that only training uses; the model is
            built without them.
        at: ``side -> ModelSpec``, where parameters depend on the side of the input in pixels.
        origin: Where a model of a user's own is defined, ``nets.py, line 12``; empty for
            torchvision's.
        num_classes: How many outputs it has where nobody says otherwise; None: not known.
    """

    name: str
    factory: Callable[[int], nn.Module]
    quantizable: Callable[[int], nn.Module] | None = None
    input_size: tuple[int, int, int] = (3, _SIDE, _SIDE)
    fixed_input: bool = False
    training_only: tuple[str, ...] = ()
    at: Callable[[int], ModelSpec] | None = None
    origin: str = ""
    num_classes: int | None = None

    def fitted(self, state: Mapping[str, Tensor]) -> ModelSpec:
        """The architecture at the input size that a state dict was made for.

        A vision transformer has a position embedding for every patch, which tells the side of
        the picture. Other architectures are returned as they are.

        Args:
            state: Parameters by name; only their shapes are looked at.
        """
        if self.at is None:
            return self
        side = _picture_side(state)
        return self if side in (None, self.input_size[1]) else self.at(side)

    def check_side(self, side: int, what: str) -> None:
        """Refuse an input that the model cannot take.

        Args:
            side: Height and width in pixels.
            what: What has that side, for the message.

        Raises:
            UserError: The model takes one size, and this is another.
        """
        _, height, width = self.input_size
        if self.fixed_input and (height, width) != (side, side):
            raise UserError(
                f"{self.name} takes pictures of {height}×{width} pixels and no others, but "
                f"{what} is {side}. Set it to {height}."
            )


MODELS: Registry[ModelSpec] = Registry("model")


def _picture_side(state: Mapping[str, Tensor]) -> int | None:
    position, patch = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if position is None or patch is None or position.ndim != 3 or patch.ndim != 4:
        return None
    patches = position.shape[1] - 1  # one position belongs to the class token
    row = math.isqrt(max(patches, 0))
    return row * patch.shape[-1] if row and row * row == patches else None


def _spec(name: str, quantizable: bool, side: int, **options: Any) -> ModelSpec:
    """The entry of a builder, which is called with some options."""

    def make(num_classes: int) -> nn.Module:
        module: nn.Module = getattr(_tv, name)(weights=None, num_classes=num_classes, **options)
        return module

    def make_quantizable(num_classes: int) -> nn.Module:
        builder = getattr(_tv.quantization, name)
        module: nn.Module = builder(
            weights=None, num_classes=num_classes, quantize=False, **options
        )
        return module

    transformer = name.startswith("vit_")
    return ModelSpec(
        name,
        make,
        make_quantizable if quantizable else None,
        (3, side, side),
        fixed_input=transformer or name.startswith("maxvit"),
        training_only=_AUXILIARY.get(name, ()),
        at=partial(_at, name) if transformer else None,
    )


def _at(name: str, side: int) -> ModelSpec:
    return _spec(name, False, side, image_size=side)


def _register_all() -> None:
    """Every classification builder of this torchvision; those with shipped weights first."""
    names = _tv.list_models(module=_tv)
    first = [name for name in SHIPPED if name in names]
    prefix = "quantized_"
    variants = {n.removeprefix(prefix) for n in _tv.list_models(module=_tv.quantization)}
    for name in [*first, *(name for name in names if name not in first)]:
        options = {"aux_logits": False, "init_weights": False} if name in _AUXILIARY else {}
        MODELS.add(name, _spec(name, name in variants, _RESIZED.get(name, _SIDE), **options))


def _own(name: str, own: OwnModel) -> None:
    """Register a model of a user's own."""
    quantizable = own.quantizable and partial(_made, own, own.quantizable)
    spec = ModelSpec(
        name,
        partial(_made, own, own.factory),
        quantizable,
        own.input_size,
        fixed_input=own.fixed_input,
        origin=own.origin,
        num_classes=own.num_classes,
    )
    MODELS.replace(name, spec)


def _made(own: OwnModel, factory: Callable[..., nn.Module], num_classes: int) -> nn.Module:
    try:
        module: object = factory(num_classes=num_classes)
    except Exception as error:  # whatever the user's code raises
        raise UserError(
            f"The model {own.name} ({own.origin}) cannot be made for {num_classes} classes: "
            f"{describe_error(error)}."
        ) from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"The factory of {own.name} ({own.origin}) returned a {type(module).__name__} instead "
            "of a torch.nn.Module. Return the model."
        )
    return module


_register_all()
OWN.follow(_own)
