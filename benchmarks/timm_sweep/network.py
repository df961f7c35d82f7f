"""Architectures of timm with seeded weights, at a small input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ptqbench.models.custom.timm_models import import_timm

SIDES = (64, 96)
"""Heights and widths in pixels to try, before the usual one."""
CLASSES = 16
_SETTLING_IMAGES = 8
_NEGLIGIBLE = 1e-2
"""Weights below that start as good as zero, so that training begins with idle blocks."""
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def create(name: str) -> tuple[nn.Module, int]:
    """Create an architecture with seeded weights, and say the side of its input.

    Small inputs are tried first, and models that are made for them; then the usual size.

    Args:
        name: As timm has it.

    Returns:
        The model in evaluation mode, and height and width in pixels.
    """
    timm = import_timm(name)
    attempts: list[tuple[dict[str, Any], int]] = []
    for side in SIDES:
        attempts += [({}, side), ({"img_size": side}, side)]
    attempts.append(({}, timm.get_pretrained_cfg(name).input_size[1]))
    error: Exception | None = None
    for options, side in attempts:
        try:
            torch.manual_seed(0)
            model = timm.create_model(name, num_classes=CLASSES, **options).eval()
            with torch.inference_mode():
                model(torch.zeros(2, 3, side, side))
        except Exception as reason:  # whatever a model says to a size that it does not take
            error = reason
            continue
        settle(model, torch.randn(_SETTLING_IMAGES, 3, side, side))
        return model, side
    assert error is not None
    raise error


def settle(model: nn.Module, images: Tensor) -> None:
    """Wake idle blocks, and set the statistics of BatchNorm to those of some images, in place.

    Args:
        model: Evaluation mode.
        images: ``N×3×H×W`` float32.
    """
    for parameter in model.parameters():
        values = parameter.detach()
        if values.numel() > 1 and float(values.abs().max()) < _NEGLIGIBLE:
            values.uniform_(0.1, 0.5)
    with torch.no_grad(), _statistics_taken(model):
        model(images)


@contextmanager
def _statistics_taken(model: nn.Module) -> Iterator[None]:
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORM)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
