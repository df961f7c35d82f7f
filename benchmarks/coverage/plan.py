"""How much of each model is measured: fewer images and pairs where a call takes long."""

from __future__ import annotations

from dataclasses import dataclass

MOST_IMAGES = 300
EVALUATION = (MOST_IMAGES, 32, 12)
"""Evaluation images at most, at least, and of giants."""
TRAINED_IMAGES = 2_000
"""Evaluation images under trained weights, which must keep 99 % of their top-1: with fewer images
hardly any interval is short enough to tell."""
CALIBRATION = (128, 24, 12)
"""Calibration images likewise."""
GIGA_MACS = 200
"""Multiply-adds (1e9) that a pass over the images of a model may take."""
GIANT = 50
"""1e9 multiply-adds of one image above which a model is a giant."""
PAIRS = ((10, 20), (25, 10), (GIANT, 6))
"""Up to how many 1e9 multiply-adds a call at the standard input gets how many pairs."""
GIANT_PAIRS = 4
UNPROMISED_PAIRS = 6
"""Of a backend whose kernels are for another CPU: its speed here is no promise."""
BATCH_PIXELS = 50 * 224 * 224
"""Pixels in a batch at most, so that wide networks fit into memory."""


@dataclass(frozen=True)
class Plan:
    """Sample sizes of one model.

    Attributes:
        evaluation_images: Images that float32 and int8 are compared on.
        calibration_images: Images that ranges are taken from, at most; the recipe may ask for
            fewer.
        batch_size: Images in a forward pass, at most.
    """

    evaluation_images: int
    calibration_images: int
    batch_size: int


@dataclass(frozen=True)
class TimingPlan:
    """Sample sizes of the latency.

    Attributes:
        pairs: Pairs of samples for the speedup.
        unpromised_pairs: Pairs where the kernels are for another CPU.
        rounds: Samples of each float32 lowering.
    """

    pairs: int
    unpromised_pairs: int
    rounds: int


def plan(macs: float, side: int, *, trained: bool = False) -> Plan:
    """Images for a model.

    Args:
        macs: Multiply-adds of one image as it is evaluated.
        side: Height and width of the evaluated images.
        trained: Whether the weights are trained.
    """
    return Plan(
        evaluation_images=TRAINED_IMAGES if trained else _images(macs / 1e9, EVALUATION),
        calibration_images=_images(macs / 1e9, CALIBRATION),
        batch_size=max(1, min(50, BATCH_PIXELS // side**2)),
    )


def timing_plan(macs: float) -> TimingPlan:
    """Pairs for a model whose standard input takes so many multiply-adds."""
    pairs = next((pairs for most, pairs in PAIRS if macs / 1e9 <= most), GIANT_PAIRS)
    return TimingPlan(pairs, min(pairs, UNPROMISED_PAIRS), 5 if pairs >= 10 else 2)


def _images(giga_macs: float, bounds: tuple[int, int, int]) -> int:
    most, least, of_giants = bounds
    if giga_macs > GIANT:
        return of_giants
    return max(least, min(most, int(GIGA_MACS / max(giga_macs, 1e-9))))
