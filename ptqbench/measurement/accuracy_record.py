"""Records of paired accuracy: how often float32 and int8 are right on the same images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ptqbench.measurement.intervals import Estimate, paired_difference, proportion
from ptqbench.measurement.sqnr import LogitNoise


@dataclass(frozen=True)
class Pairs:
    """How often float32 and int8 are right on the same images.

    Attributes:
        both: Images on which both are right.
        only_float32: Images on which only float32 is.
        only_int8: Images on which only int8 is.
        neither: Images on which both are wrong.
    """

    both: int
    only_float32: int
    only_int8: int
    neither: int

    @property
    def n(self) -> int:
        """Images."""
        return self.both + self.only_float32 + self.only_int8 + self.neither

    @property
    def float32(self) -> float:
        """Share of images on which float32 is right."""
        return (self.both + self.only_float32) / self.n

    @property
    def int8(self) -> float:
        """Share of images on which int8 is right."""
        return (self.both + self.only_int8) / self.n

    def difference(self, confidence: float = 0.95) -> Estimate:
        """``int8 - float32`` with the paired interval."""
        return paired_difference(
            self.both, self.only_float32, self.only_int8, self.neither, confidence
        )


@dataclass(frozen=True)
class ClassSpread:
    """How labels or predictions are distributed over the classes.

    Attributes:
        distinct: Classes that occur.
        commonest: Images of the class that occurs most often.
    """

    distinct: int
    commonest: int

    @classmethod
    def of(cls, counts: Tensor) -> ClassSpread:
        """Summarize the number of images of each class."""
        return cls(int((counts > 0).sum()), int(counts.max()))


@dataclass(frozen=True)
class Accuracy:
    """Predictions of float32 and int8 on the same images, compared.

    Attributes:
        n: Images seen.
        agreed: Images for which both predict the same class.
        noise: Power of the logits and of the error that int8 adds to them.
        top1: How often the highest logit is the label's; None without labels.
        top5: How often the label is among the five highest logits (among all, if there
            are fewer than five classes); None without labels.
        classes: Number of logits per image.
        broken: Names of the images that could not be decoded and are not counted.
        labels: Distribution of the labels of the images; None without labels.
        predictions: Distribution of float32's predictions.
        missing_classes: Names of the classes that have images in the data, but none among
            the images evaluated.
        alike: Number of images that are blank, or show what the one before shows.
    """

    n: int
    agreed: int
    noise: LogitNoise
    top1: Pairs | None
    top5: Pairs | None
    classes: int | None = None
    broken: tuple[str, ...] = ()
    labels: ClassSpread | None = None
    predictions: ClassSpread | None = None
    missing_classes: tuple[str, ...] = ()
    alike: int = 0

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self.top1 is not None

    @property
    def float32_top1(self) -> float | None:
        """Share of images that float32 gets right; None without labels."""
        return None if self.top1 is None else self.top1.float32

    @property
    def int8_top1(self) -> float | None:
        """Share of images that int8 gets right; None without labels."""
        return None if self.top1 is None else self.top1.int8

    @property
    def float32_top5(self) -> float | None:
        """Share of images whose label is among float32's five highest; None without labels."""
        return None if self.top5 is None else self.top5.float32

    @property
    def int8_top5(self) -> float | None:
        """Share of images whose label is among int8's five highest; None without labels."""
        return None if self.top5 is None else self.top5.int8

    @property
    def difference(self) -> Estimate | None:
        """``int8_top1 - float32_top1`` with the paired 95 % interval; None without labels."""
        return None if self.top1 is None else self.top1.difference()

    @property
    def agreement(self) -> Estimate:
        """Share of images for which both predict the same class, Wilson's 95 % interval."""
        return proportion(self.agreed, self.n)

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio of the logits in dB.

        Infinite if they are equal, minus infinity if int8 yields infinite logits or NaN.
        """
        return self.sqnr.value

    @property
    def sqnr(self) -> Estimate:
        """Signal-to-quantization-noise ratio in dB with its 95 % interval."""
        return self.noise.sqnr()
