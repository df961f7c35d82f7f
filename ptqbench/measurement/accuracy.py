"""Accuracy, paired: float32 and int8 see the same images, and are compared on each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ptqbench.errors import UserError
from ptqbench.measurement.statistics import Estimate, paired_difference, proportion
from ptqbench.measurement.types import Model
from ptqbench.phases import Phases
from ptqbench.progress import Progress, silent

if TYPE_CHECKING:
    from ptqbench.data.sets import ImageSet

STEP = 1000
"""Images that a top-up adds at a time."""


@dataclass(frozen=True)
class Accuracy:
    """How float32 and int8 do on the same images.

    Attributes:
        n: Images seen.
        both: Images that both classify correctly.
        only_float32: Images that only float32 classifies correctly.
        only_int8: Images that only int8 classifies correctly.
        neither: Images that both get wrong.
        float32_top1: Share of images whose highest float32 logit is the label's.
        int8_top1: The same for int8.
        float32_top5: Share of images whose label is among the five highest float32
            logits (among all, where there are fewer than five classes).
        int8_top5: The same for int8.
        agreement: Share of images for which both predict the same class, with Wilson's
            95 % interval.
        difference: ``int8_top1 - float32_top1`` with the paired 95 % interval.
        sqnr_db: Signal-to-quantization-noise ratio of the logits in dB; infinite if
            they are equal, minus infinity if int8 gives what is not a number.
        classes: Number of logits per image.
    """

    n: int
    both: int
    only_float32: int
    only_int8: int
    neither: int
    float32_top1: float
    int8_top1: float
    float32_top5: float
    int8_top5: float
    agreement: Estimate
    difference: Estimate
    sqnr_db: float
    classes: int | None = None


def at_once(accuracy: Accuracy) -> bool:
    """Settled, whatever the numbers say: evaluate the first images only."""
    return True


def measure_accuracy(
    float32: Model,
    int8: Model,
    images: ImageSet,
    *,
    batch_size: int,
    settled: Callable[[Accuracy], bool] = at_once,
    progress: Progress = silent,
    phases: Phases | None = None,
) -> Accuracy:
    """Compare int8 with float32 on the first images, then on more while it is unsettled.

    Images are streamed: memory holds one batch, whatever the number of images.

    Args:
        float32: The original.
        int8: The quantized artifact.
        images: Where the images come from; ``count`` are seen first, ``limit`` at most.
        batch_size: Images in a forward pass.
        settled: Whether the numbers so far decide what they are wanted for.
        progress: Told how many images are done.
        phases: Receives the time of the forward passes, of waiting for images and of
            scoring.

    Raises:
        UserError: There are no images, a label is no class of the model, float32 gives
            logits that are not numbers, or the two models differ in their outputs.
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of at least 1, but got {batch_size}.")
    phases = Phases() if phases is None else phases
    tally = _Tally(images.name)
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
        accuracy = tally.result()
        if stop >= images.limit or settled(accuracy):
            return accuracy
        start, stop = stop, min(stop + STEP, images.limit)


def _timed(
    batches: Iterator[tuple[Tensor, Tensor]], phases: Phases
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batches, the time spent waiting for them counted as a phase."""
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
        name: Name of the image set, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.n = self.both = self.only_float32 = self.only_int8 = 0
        self.float32_top5 = self.int8_top5 = self.agreed = 0
        self.signal = self.noise = 0.0
        self.classes: int | None = None

    def add(self, reference: Tensor, quantized: Tensor, labels: Tensor) -> None:
        """Score one batch: two sets of logits N x classes and the labels N (int64)."""
        self._check(reference, quantized, labels)
        self.classes = reference.shape[1]
        k = min(5, self.classes)
        # int8 logits that are not numbers predict nothing, so they can only be wrong.
        numbers = quantized.isfinite().all(dim=1)
        ranks_f, ranks_q = label_ranks(reference, labels), label_ranks(quantized, labels)
        right_f, right_q = ranks_f == 0, (ranks_q == 0) & numbers
        same = (reference.argmax(1) == quantized.argmax(1)) & numbers
        self.n += len(labels)
        self.both += int((right_f & right_q).sum())
        self.only_float32 += int((right_f & ~right_q).sum())
        self.only_int8 += int((~right_f & right_q).sum())
        self.float32_top5 += int((ranks_f < k).sum())
        self.int8_top5 += int(((ranks_q < k) & numbers).sum())
        self.agreed += int(same.sum())
        exact = reference.double()
        self.signal += float(exact.square().sum())
        error = float((exact - quantized.double()).square().sum())
        self.noise += error if math.isfinite(error) else math.inf

    def _check(self, reference: Tensor, quantized: Tensor, labels: Tensor) -> None:
        if reference.ndim != 2 or reference.shape != quantized.shape:
            raise UserError(
                f"On {self.name}, float32 gives outputs of shape {tuple(reference.shape)} and "
                f"int8 of shape {tuple(quantized.shape)}. Both must give one row of logits "
                "per image; check that the artifact was made from this model."
            )
        if not reference.isfinite().all():
            raise UserError(
                f"On {self.name}, float32 gives logits that are infinite or not numbers. "
                "Check the weights and the preprocessing (mean, std)."
            )
        classes = reference.shape[1]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise UserError(
                f"On {self.name}, labels run from {int(labels.min())} to {int(labels.max())}, "
                f"but the model has the classes 0 to {classes - 1}. "
                "Check that the data and the weights have the same classes."
            )

    def result(self) -> Accuracy:
        """The measurement over all images so far.

        Raises:
            UserError: There were no images.
        """
        if not self.n:
            raise UserError(f"There are no images to evaluate in {self.name}. Add some.")
        n = self.n
        neither = n - self.both - self.only_float32 - self.only_int8
        return Accuracy(
            n=n,
            both=self.both,
            only_float32=self.only_float32,
            only_int8=self.only_int8,
            neither=neither,
            float32_top1=(self.both + self.only_float32) / n,
            int8_top1=(self.both + self.only_int8) / n,
            float32_top5=self.float32_top5 / n,
            int8_top5=self.int8_top5 / n,
            agreement=proportion(self.agreed, n),
            difference=paired_difference(self.both, self.only_float32, self.only_int8, neither),
            sqnr_db=decibels(self.signal, self.noise),
            classes=self.classes,
        )


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the label, with ties decided as ``argmax`` does.

    int8 logits often tie, and ``topk`` promises no order among equals: counting makes
    the result the same everywhere, with rank 0 exactly where ``argmax`` is the label.

    Args:
        logits: N x classes.
        labels: N, int64.

    Returns:
        N, int64, from 0 to classes - 1.
    """
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(1)


def decibels(signal: float, noise: float) -> float:
    """Power ratio in dB: ``10 log10(signal / noise)``; infinite without noise."""
    if noise == 0:
        return math.inf
    if signal == 0 or math.isinf(noise):
        return -math.inf
    return 10 * math.log10(signal / noise)
