"""The head of a network whose last layer has no bias, as MaxViT's has none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ptqbench.models.catalog import MODELS
from ptqbench.weights.probe.head_search import layers_of
from ptqbench.weights.probe.ridge_head import solve_head

CLASSES = 4


def clusters(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of four classes around four places, as many of each."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(CLASSES, 12, generator=torch.Generator().manual_seed(9)) + 3
    labels = torch.arange(count) % CLASSES
    return places[labels] + 0.5 * torch.randn(count, 12, generator=generator), labels


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_head_classifies_new_images(with_bias: bool) -> None:
    features, labels = clusters(200, 0)
    head = solve_head(features, labels, CLASSES, with_bias=with_bias)
    unseen, truth = clusters(400, 1)
    outputs = unseen.double() @ head.weight.T + head.bias
    assert (outputs.argmax(1) == truth).double().mean() > 0.95
    assert head.top1 > 0.95


def test_without_a_bias_nothing_is_lost_by_leaving_it_out() -> None:
    features, labels = clusters(200, 0)
    head = solve_head(features, labels, CLASSES, with_bias=False)
    assert torch.allclose(head.bias, head.bias[0].expand(CLASSES))
    plain = features.double() @ head.weight.T
    assert torch.equal(plain.argmax(1), (plain + head.bias).argmax(1))


def test_maxvit_is_such_a_network() -> None:
    with torch.device("meta"):
        model = MODELS.get("maxvit_t").factory(CLASSES)
    _, layer = layers_of(model)[-1]
    assert layer.bias is None
