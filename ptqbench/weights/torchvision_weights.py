"""torchvision's weights: their names, files, preprocessing, classes and accuracies."""

from __future__ import annotations

import math
from typing import Any

from ptqbench.core.names import first_few, nearest
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.models.catalog import MODELS, ModelSpec
from ptqbench.models.import_torchvision import import_torchvision
from ptqbench.recipes.published_accuracy import PublishedAccuracy, published_accuracy
from ptqbench.settings.weights_specifier import IMAGENET
from ptqbench.weights.sidecar import WeightsSettings

_OTHERS = 8


def choose(spec: ModelSpec, source: str) -> Any:
    """Choose the member of a torchvision weights enum that a source names.

    Args:
        spec: The architecture.
        source: ``imagenet`` for torchvision's default, or the name of a member, optionally
            with its enum (``ResNet50_Weights.IMAGENET1K_V2``).

    Raises:
        UserError: torchvision has no weights for the model, or none of that name.
    """
    enum = _enum(spec)
    members = _classifiers(spec)
    if not members:
        raise UserError(
            f"torchvision has no ImageNet weights for {spec.name}. Pass a weights file."
        )
    if source == IMAGENET:
        return enum.DEFAULT
    owner, _, name = source.rpartition(".")
    if owner and owner != enum.__name__:
        raise UserError(
            f"{owner} belongs to another model: the weights of {spec.name} are in {enum.__name__}. "
            f"{nearest(name, [*members])}"
        )
    if name in members:
        return members[name]
    raise UserError(_unknown(spec, name, [*members]))


def names(spec: ModelSpec) -> list[str]:
    """Return the names of torchvision's weights for a model; none for a custom model."""
    return [*_classifiers(spec)]


def settings_of(member: Any, spec: ModelSpec) -> WeightsSettings:
    """Read preprocessing and classes from a member's transforms and metadata.

    torchvision's presets accept Pillow images, for which ``antialias`` has no effect: Pillow
    always averages when it shrinks a picture, and so does `Preprocessing`.

    Args:
        member: Member of a torchvision weights enum.
        spec: The architecture.
    """
    preset = member.transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    preprocessing = Preprocessing(
        resize, crop, tuple(preset.mean), tuple(preset.std), preset.interpolation.value
    )
    # torchvision enables it for its weights of the models that have the option.
    return WeightsSettings(
        preprocessing, tuple(member.meta["categories"]), bool(spec.training_only)
    )


def published_with(spec: ModelSpec, member: Any) -> PublishedAccuracy | None:
    """Return the accuracies that torchvision published for a member.

    Args:
        spec: The architecture.
        member: Member of its torchvision weights enum.
    """
    known = published_accuracy(spec.name, member.name)
    if known is not None:
        return known
    top1 = member.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
    return None if top1 is None or not math.isfinite(top1) else PublishedAccuracy(float(top1))


def _enum(spec: ModelSpec) -> Any:
    if spec.origin:  # torchvision ignores case: a custom model may be called ResNet18
        return None
    try:
        return import_torchvision().models.get_model_weights(spec.name)
    except ValueError:
        return None


def _classifiers(spec: ModelSpec) -> dict[str, Any]:
    """Members by name, without those that lack a trained classifier (VGG16's features)."""
    enum = _enum(spec)
    return {member.name: member for member in enum or () if member.meta.get("categories")}


def _unknown(spec: ModelSpec, name: str, allowed: list[str]) -> str:
    if name in getattr(_enum(spec), "__members__", {}):
        reason = f"{name} of {spec.name} are features for detectors, without a trained classifier"
    elif "FBGEMM" in name or "QNNPACK" in name:
        reason = f"{name} are int8 weights, and ptqbench starts from float32"
    else:
        others = [other for other in MODELS.names() if name in _classifiers(MODELS.get(other))]
        if others:
            return (
                f"{spec.name} has no weights {name}; {first_few(others, _OTHERS)} "
                f"{'have' if len(others) > 1 else 'has'}. For {spec.name} there are: "
                f"{', '.join(allowed)}, or `{IMAGENET}` for torchvision's default."
            )
        reason = f"There are no weights {name} for {spec.name}"
    return f"{reason}. {nearest(name, allowed)} `{IMAGENET}` means torchvision's default."
