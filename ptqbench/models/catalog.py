"""Model factories by name: torchvision's classifiers and custom models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from ptqbench.core.package_data import SHIPPED
from ptqbench.core.registry import Registry
from ptqbench.core.user_code import describe_error
from ptqbench.errors import UserError
from ptqbench.models.custom.spec import CUSTOM_MODELS, CustomModel
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
"""Side of the standard input of architectures that were not published with 224."""

_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Prefixes of auxiliary classifiers, which only training uses."""


@dataclass(frozen=True)
class ModelSpec:
    """A named factory of float32 classifiers.

    Attributes:
        name: Registered name.
        factory: ``num_classes -> module``, randomly initialised, plain torchvision.
        quantizable: The same architecture and state-dict keys, prepared for eager
            quantization (stubs and ``FloatFunctional``), or None if there is none.
        input_size: Standard input ``(C, H, W)``, at which latency is measured.
        fixed_input: Whether the model accepts no other height and width.
        training_only: Prefixes of the names of tensors that only training uses; the model is
            built without them.
        at: ``side -> ModelSpec`` if parameters depend on the side of the input in pixels.
        origin: Where a custom model is defined, ``nets.py, line 12``; empty for torchvision's.
        num_classes: Default number of outputs; None if it is not known.
        preprocessing: Settings of a sidecar that hold where the weights have none.
        note: What readers of a report should know about the model; empty: nothing.
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
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def fitted(self, state: Mapping[str, Tensor]) -> ModelSpec:
        """Return the architecture at the input size that a state dict was trained for.

        A vision transformer has a position embedding for every patch, which determines the side
        of the picture. Other architectures are returned as they are.

        Args:
            state: Parameters by name; only their shapes are used.
        """
        if self.at is None:
            return self
        side = _picture_side(state, patch=_patch_side(self.name))
        return self if side in (None, self.input_size[1]) else self.at(side)

    def check_side(self, side: int, what: str) -> None:
        """Check that the model accepts an input size.

        Args:
            side: Height and width in pixels.
            what: What has that size, for the message.

        Raises:
            UserError: The model accepts one size only, and this is another.
        """
        _, height, width = self.input_size
        if self.fixed_input and (height, width) != (side, side):
            raise UserError(
                f"{self.name} accepts pictures of {height}×{width} pixels only, but "
                f"{what} is {side}. Set it to {height}."
            )


MODELS: Registry[ModelSpec] = Registry("model")


def _patch_side(name: str) -> int:
    """Side of the patches of a vision transformer, which ends its name: ``vit_b_16``."""
    return int(name.rpartition("_")[2])


def _picture_side(state: Mapping[str, Tensor], *, patch: int) -> int | None:
    """Side of the pictures of a vision transformer; None if the shapes do not determine it."""
    position, projection = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if position is None or projection is None or position.ndim != 3 or projection.ndim != 4:
        return None
    if projection.shape[2:] != (patch, patch):  # of another architecture
        return None
    patches = position.shape[1] - 1  # one position belongs to the class token
    row = math.isqrt(max(patches, 0))
    return row * patch if row and row * row == patches else None


def _spec(name: str, quantizable: bool, side: int, **options: Any) -> ModelSpec:
    """Describe a torchvision builder that is called with some options."""

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
    """Register torchvision's classification builders, those with shipped weights first."""
    names = _tv.list_models(module=_tv)
    first = [name for name in SHIPPED if name in names]
    prefix = "quantized_"
    variants = {n.removeprefix(prefix) for n in _tv.list_models(module=_tv.quantization)}
    for name in [*first, *(name for name in names if name not in first)]:
        options = {"aux_logits": False, "init_weights": False} if name in _AUXILIARY else {}
        MODELS.add(name, _spec(name, name in variants, _RESIZED.get(name, _SIDE), **options))


def add_custom_model(custom: CustomModel) -> None:
    """Add a custom model to the catalog, or replace the one of that name."""
    quantizable = custom.quantizable and partial(_build, custom, custom.quantizable)
    spec = ModelSpec(
        custom.name,
        partial(_build, custom, custom.factory),
        quantizable,
        custom.input_size,
        fixed_input=custom.fixed_input,
        origin=custom.origin,
        num_classes=custom.num_classes,
        preprocessing=custom.preprocessing,
        note=custom.note,
    )
    MODELS.replace(custom.name, spec)


def _build(custom: CustomModel, factory: Callable[..., nn.Module], num_classes: int) -> nn.Module:
    try:
        module: object = factory(num_classes=num_classes)
    except Exception as error:  # whatever the user's code raises
        raise UserError(
            f"The model {custom.name} ({custom.origin}) cannot be built for {num_classes} classes: "
            f"{describe_error(error)}."
        ) from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"The factory of {custom.name} ({custom.origin}) returned a {type(module).__name__} "
            "instead of a torch.nn.Module. Return the model."
        )
    return module


_register_all()
for _custom in CUSTOM_MODELS:  # registered before torch was imported
    add_custom_model(_custom)
