"""Solve for a linear classifier in closed form: ridge regression on one-hot targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_PENALTIES = torch.logspace(-9, 0, 28, dtype=torch.float64)
"""Candidates, as shares of the largest eigenvalue of the features' scatter."""

_SCALES = torch.logspace(-1, 2, 61, dtype=torch.float64)
"""Candidates for the factor of the regression's outputs."""

_RANK = 1e-12
"""Share of the largest eigenvalue below which a direction is rounding noise."""


@dataclass(frozen=True)
class Head:
    """A linear classifier ``features @ weight.T + bias``, and its accuracy.

    Attributes:
        weight: ``K×D`` float64.
        bias: ``K`` float64.
        penalty: The ridge penalty, added to the scatter of the centred features.
        top1: Leave-one-out top-1: each image classified by the solution without it.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    top1: float


def solve_head(features: Tensor, labels: Tensor, classes: int, *, with_bias: bool = True) -> Head:
    """Solve for the head.

    The penalty is the one with the least squared leave-one-out error, which ridge regression has
    in closed form: the residual divided by one minus its leverage. The outputs are then scaled by
    the factor with the least leave-one-out cross-entropy, which calibrates their softmax.

    Args:
        features: ``N×D``, any floating point type; computed in float64.
        labels: ``N`` int64.
        classes: Number of classes ``K``.
        with_bias: Whether the head has a bias. Without one the features are not centred: if all
            classes have the same number of images, their biases are equal, and omitting them
            changes no prediction.
    """
    mean = features.double().mean(dim=0) * with_bias
    centred = features.double() - mean
    targets = torch.nn.functional.one_hot(labels, classes).double()
    shares = targets.mean(dim=0)
    values, projected = _directions(centred)
    moments = projected.T @ (targets - shares)
    best = None
    for share in _PENALTIES:
        penalty = float(share * values.max())
        damped = 1 / (values + penalty)
        fitted = shares + projected @ (damped[:, None] * moments)
        leverage = with_bias / len(labels) + (projected.square() @ damped)
        left_out = targets - (targets - fitted) / (1 - leverage.clamp(max=1 - 1e-9))[:, None]
        error = float((targets - left_out).square().mean())
        if best is None or error < best[0]:
            best = (error, penalty, left_out)
    assert best is not None
    _, penalty, left_out = best
    dual = projected @ ((1 / (values * (values + penalty)))[:, None] * moments)
    weight = (centred.T @ dual).T
    scale = _temperature(left_out, labels)
    top1 = float((left_out.argmax(dim=1) == labels).double().mean())
    return Head(weight * scale, (shares - weight @ mean) * scale, penalty, top1)


def _directions(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of the scatter, and the images' coordinates along its eigenvectors, ``N×R``."""
    images, width = centred.shape
    if images <= width:
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        significant = values > _RANK * values.max()
        return values[significant], vectors[:, significant] * values[significant].sqrt()
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    significant = values > _RANK * values.max()
    return values[significant], centred @ vectors[:, significant]


def _temperature(outputs: Tensor, labels: Tensor) -> float:
    losses = [
        float(torch.nn.functional.cross_entropy(outputs * scale, labels)) for scale in _SCALES
    ]
    return float(_SCALES[min(range(len(losses)), key=losses.__getitem__)])


def bias_above(outputs: Tensor, share: float) -> float:
    """Return the bias after which only a share of the outputs is below zero.

    Args:
        outputs: Any shape.
        share: Between 0 and 1.
    """
    flat = outputs.flatten()
    place = max(1, math.ceil(share * flat.numel()))
    return -float(flat.kthvalue(place).values)
