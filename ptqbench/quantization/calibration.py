"""Show the calibration images to the observers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ptqbench.core.phases import Phases
from ptqbench.errors import UserError


def calibrate(prepared: nn.Module, batches: Iterable[Tensor], phases: Phases) -> int:
    """Run the batches through a prepared module.

    Args:
        prepared: Module with observers.
        batches: ``N×C×H×W`` float32, streamed.
        phases: Where the forward passes are counted.

    Returns:
        The number of images seen.

    Raises:
        UserError: There was no image at all.
    """
    seen = 0
    with torch.inference_mode():
        for batch in batches:
            with phases.measure("calibration", forward=True):
                prepared(batch)
            seen += len(batch)
    if not seen:
        raise UserError("There are no calibration images: quantization needs at least one.")
    return seen
