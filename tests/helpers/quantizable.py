"""torchvision's quantizable variants with weights."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ptqbench.models.catalog import ModelSpec
from ptqbench.weights.load import Weights, build_model


def build_quantizable(spec: ModelSpec, weights: Weights) -> nn.Module:
    """The variant prepared for eager quantization, with weights, in evaluation mode."""
    assert spec.quantizable is not None
    return build_model(replace(spec, factory=spec.quantizable, at=None), weights)
