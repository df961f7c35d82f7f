"""A model that computes what it has seen before only once."""

from __future__ import annotations

import hashlib

from torch import Tensor

from ptqbench.backends.backend import Model


class Remembered:
    """Keeps the logits of every batch: all backends of a model are compared with the same.

    A batch is known again by its content, so that it does not matter in which order or how
    often batches come. Logits are small beside images, which are not kept.

    Args:
        model: Gives the same logits for the same batch.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._logits: dict[tuple[tuple[int, ...], bytes], Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` of images ``N×C×H×W`` float32."""
        content = hashlib.sha256(images.contiguous().numpy().data).digest()
        key = (tuple(images.shape), content)
        if key not in self._logits:
            self._logits[key] = self._model(images)
        return self._logits[key]
