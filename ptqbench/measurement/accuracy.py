"""Measure accuracy in pairs: float32 and int8 see the same images and are compared on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.data.image_set import alike_in, broken_in, expected_labels
from ptqbench.errors import UserError
from ptqbench.measurement.accuracy_record import Accuracy, ClassSpread, Pairs
from ptqbench.measurement.sqnr import LogitNoise

if TYPE_CHECKING:
    from ptqbench.data.image_set import ImageSet

STEP = 1000
"""Images that a top-up adds at a time."""


def at_once(accuracy: Accuracy) -> bool:
    """Stop after the first images, whatever the numbers say."""
    return True


def measure_accuracy(
    float32: Model,
    int8: Model,
    images: ImageSet,
    *,
    batch_size: int,
    stop_when: Callable[[Accuracy], bool] = at_once,
    progress: Progress = silent,
    phases: Phases | None = None,
) -> Accuracy:
    """Compare int8 with float32 on the first images, then on more until ``stop_when`` holds.

    Images are streamed: memory holds one batch, whatever the number of images. Without
    labels only predictions and logits are compared.

    Args:
        float32: The original.
        int8: The quantized artifact.
        images: The images; ``count`` are evaluated first, ``limit`` at most.
        batch_size: Images in a forward pass.
        stop_when: Whether the numbers so far suffice for a verdict.
        progress: Progress callback; counts images.
        phases: Receives the time of the forward passes, of waiting for images and of
            scoring.

    Raises:
        UserError: There are no images, a label is not a class of the model, float32 yields
            infinite logits or NaN, or the outputs of the two models differ in shape.
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of at least 1, but got {batch_size}.")
    phases = Phases() if phases is None else phases
    tally = _Tally(images)
    start, stop = 0, images.count
    while True:
        for pixels, labels in _timed(images.batches(start, stop, batch_size), phases):
            with torch.inference_mode():
                with phases.measure("float32 predictions", forward=True):
                    reference = float32(pixels)
                with phases.measure("int8 predictions", forward=True):
                    quantized = int8(pixels)
                with phases.measure("scoring"):
                    tally.add(reference, quantized, labels)
            progress("accuracy", tally.n, max(stop, tally.n))
        accuracy = replace(tally.result(), broken=broken_in(images), alike=alike_in(images))
        if stop >= images.limit or stop_when(accuracy):
            return accuracy
        start, stop = stop, min(stop + STEP, images.limit)


def _timed(
    batches: Iterator[tuple[Tensor, Tensor]], phases: Phases
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches, counting the time spent waiting for them as a phase."""
    batches = iter(batches)
    while True:
        with phases.measure("evaluation images"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


class _Tally:
    """Counts and sums over the images seen so far.

    Args:
        images: The images that are evaluated.
    """

    def __init__(self, images: ImageSet) -> None:
        self.name, self.labelled = images.name, images.labelled
        self.names, self.expected = images.classes, expected_labels(images)
        self.n = self.agreed = 0
        self.top1, self.top5 = [0, 0, 0, 0], [0, 0, 0, 0]
        self.noise = LogitNoise()
        self.labels = self.predictions = torch.zeros(0, dtype=torch.int64)

    def add(self, reference: Tensor, quantized: Tensor, labels: Tensor) -> None:
        """Score one batch: two sets of logits N x classes and the labels N (int64)."""
        self._check(reference, quantized, labels)
        # int8 logits that are infinite or NaN predict nothing, so they can only be wrong.
        numbers = quantized.isfinite().all(dim=1)
        predictions = reference.argmax(1)
        self.n += len(labels)
        self.agreed += int(((predictions == quantized.argmax(1)) & numbers).sum())
        self.noise += LogitNoise.of(reference, quantized)
        self.predictions = _counted(self.predictions, predictions, reference.shape[1])
        if self.labelled:
            self.labels = _counted(self.labels, labels, reference.shape[1])
            ranks_f, ranks_q = label_ranks(reference, labels), label_ranks(quantized, labels)
            for counts, k in ((self.top1, 1), (self.top5, 5)):
                _count(counts, ranks_f < k, (ranks_q < k) & numbers)

    def _check(self, reference: Tensor, quantized: Tensor, labels: Tensor) -> None:
        if reference.ndim != 2 or reference.shape != quantized.shape:
            raise UserError(
                f"On {self.name}, float32 gives outputs of shape {tuple(reference.shape)} and "
                f"int8 of shape {tuple(quantized.shape)}. Both must give one row of logits "
                "per image; check that the artifact was built from this model."
            )
        if not reference.isfinite().all():
            raise UserError(
                f"On {self.name}, float32 gives logits that are infinite or not numbers. "
                "Check the weights and the preprocessing (mean, std)."
            )
        if not self.labelled or not len(labels):
            return
        classes, lowest, highest = reference.shape[1], int(labels.min()), int(labels.max())
        if not 0 <= lowest <= highest < classes:
            raise UserError(
                f"On {self.name}, labels run from {lowest} to {highest}, "
                f"but the model has the classes 0 to {classes - 1}. "
                "Check that the data and the weights have the same classes."
            )

    def result(self) -> Accuracy:
        """Summarize all images so far.

        Raises:
            UserError: There were no images.
        """
        if not self.n:
            raise UserError(f"There are no images to evaluate in {self.name}. Add some.")
        seen = set(self.labels.nonzero().flatten().tolist())
        return Accuracy(
            n=self.n,
            agreed=self.agreed,
            noise=self.noise,
            top1=Pairs(*self.top1) if self.labelled else None,
            top5=Pairs(*self.top5) if self.labelled else None,
            classes=len(self.predictions),
            labels=ClassSpread.of(self.labels) if self.labelled else None,
            predictions=ClassSpread.of(self.predictions),
            missing_classes=tuple(self.names[label] for label in sorted(self.expected - seen)),
        )


def _counted(counts: Tensor, indices: Tensor, classes: int) -> Tensor:
    """Add the classes of a batch to the number of images of each class."""
    new = torch.bincount(indices, minlength=classes)
    return new if not len(counts) else counts + new


def _count(counts: list[int], first: Tensor, second: Tensor) -> None:
    """Add a batch to the counts of `Pairs`: on which images both, one or none are right."""
    for index, outcome in enumerate(
        (first & second, first & ~second, ~first & second, ~first & ~second)
    ):
        counts[index] += int(outcome.sum())


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the classes that come before the label, with ties decided as ``argmax`` does.

    int8 logits often tie, and ``topk`` promises no order among equals: counting makes
    the result the same everywhere, with rank 0 exactly where ``argmax`` is the label.

    Args:
        logits: N x classes.
        labels: N, int64.

    Returns:
        N, int64, from 0 to classes - 1.
    """
    score = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > score) | ((logits == score) & before)).sum(1)
