"""Accuracies that torchvision published for its own weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedAccuracy:
    """Top-1 on the 50,000 pictures of ImageNet's validation set, in percent.

    Attributes:
        float32_top1: Top-1 of the float32 weights.
        int8_top1: Top-1 of the int8 weights that torchvision derived from them, or None.
        int8_engine: Quantized engine of the int8 weights, or None.
        method: ``PTQ``, post-training quantization as ptqbench does, or ``QAT``,
            quantization-aware training; None if there are no int8 weights.
    """

    float32_top1: float
    int8_top1: float | None = None
    int8_engine: str | None = None
    method: str | None = None

    def facts(self) -> dict[str, object]:
        """Return the record as facts of a case; shares are fractions of 1."""
        return {
            "published_float32_top1": _share(self.float32_top1),
            "published_int8_top1": None if self.int8_top1 is None else _share(self.int8_top1),
            "published_int8_engine": self.int8_engine,
            "published_int8_method": self.method,
        }


def _share(percent: float) -> float:
    return round(percent / 100, 7)


def _ptq(float32: float, int8: float) -> PublishedAccuracy:
    return PublishedAccuracy(float32, int8, "fbgemm", "PTQ")


def _qat(float32: float, int8: float) -> PublishedAccuracy:
    return PublishedAccuracy(float32, int8, "qnnpack", "QAT")


PUBLISHED_ACCURACIES = {
    ("googlenet", "IMAGENET1K_V1"): _ptq(69.778, 69.826),
    ("inception_v3", "IMAGENET1K_V1"): _ptq(77.294, 77.176),
    ("mobilenet_v2", "IMAGENET1K_V1"): _qat(71.878, 71.658),
    ("mobilenet_v3_large", "IMAGENET1K_V1"): _qat(74.042, 73.004),
    ("resnet18", "IMAGENET1K_V1"): _ptq(69.758, 69.494),
    ("resnet50", "IMAGENET1K_V1"): _ptq(76.130, 75.920),
    ("resnet50", "IMAGENET1K_V2"): _ptq(80.858, 80.282),
    ("resnext101_32x8d", "IMAGENET1K_V1"): _ptq(79.312, 78.986),
    ("resnext101_32x8d", "IMAGENET1K_V2"): _ptq(82.834, 82.574),
    ("resnext101_64x4d", "IMAGENET1K_V1"): _ptq(83.246, 82.898),
    ("shufflenet_v2_x0_5", "IMAGENET1K_V1"): _ptq(60.552, 57.972),
    ("shufflenet_v2_x1_0", "IMAGENET1K_V1"): _ptq(69.362, 68.360),
    ("shufflenet_v2_x1_5", "IMAGENET1K_V1"): _ptq(72.996, 72.052),
    ("shufflenet_v2_x2_0", "IMAGENET1K_V1"): _ptq(76.230, 75.354),
}
"""Accuracies by model and weights, if torchvision published int8 weights for them."""


def published_accuracy(model: str, weights: str) -> PublishedAccuracy | None:
    """Return what torchvision published for weights with an int8 counterpart.

    Accuracies of float32 alone are in its weights enums
    (`ptqbench.weights.torchvision_weights.published_with`).

    Args:
        model: Registered name.
        weights: Name of a member of torchvision's weights enum, such as ``IMAGENET1K_V1``.
    """
    return PUBLISHED_ACCURACIES.get((model, weights))
