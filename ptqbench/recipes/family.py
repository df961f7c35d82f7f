"""Families of architectures, by the beginnings of their names."""

from __future__ import annotations

FAMILIES: dict[str, tuple[str, ...]] = {
    "AlexNet": ("alexnet",),
    "VGG": ("vgg",),
    "ResNet": ("resnet", "resnext", "wide_resnet"),
    "SqueezeNet": ("squeezenet",),
    "DenseNet": ("densenet",),
    "GoogLeNet": ("googlenet",),
    "Inception": ("inception",),
    "ShuffleNet": ("shufflenet",),
    "MobileNet": ("mobilenet",),
    "MNASNet": ("mnasnet",),
    "EfficientNet": ("efficientnet",),
    "RegNet": ("regnet",),
    "ConvNeXt": ("convnext",),
    "Vision Transformer": ("vit_",),
    "Swin Transformer": ("swin_",),
    "MaxViT": ("maxvit",),
}
"""Beginnings of the members' names by family, in the order of reports."""

OTHER = "Other"


def family(model: str) -> str:
    """Return the family of a model; `OTHER` if none matches its name."""
    return next((name for name, starts in FAMILIES.items() if model.startswith(starts)), OTHER)
