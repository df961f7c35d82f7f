"""Which family an architecture belongs to: that of the module which holds its recipe."""

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
"""How the names of their members begin, by family, in the order of reports."""

OTHER = "Other"


def family(model: str) -> str:
    """The family of a model, `OTHER` if its name begins like that of none."""
    return next((name for name, starts in FAMILIES.items() if model.startswith(starts)), OTHER)
