"""Biases that take back the mean error of rounded weights, against outputs that are averaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_artifacts import SMALL, noise, small
from helpers.tiny_networks import decibels
from torch import Tensor, nn

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.quantization.bias_correction import MeanInput, correct_biases, mean_inputs
from ptqbench.quantization.qconfig import make_qconfig

LAYERS = {
    "strided": nn.Conv2d(6, 8, 3, 2, 1),
    "depthwise": nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False),
    "dilated": nn.Conv2d(6, 4, 3, 1, 2, dilation=2),
    "groups": nn.Conv2d(6, 4, (1, 3), 1, (0, 1), groups=2),
}


def images(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 1


@pytest.mark.parametrize("kind", LAYERS)
def test_the_shift_is_the_mean_difference_of_outputs(kind: str) -> None:
    layer = LAYERS[kind]
    error = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1)) * 0.01
    batches = [images(2, 5, 6, 9, 9), images(3, 2, 6, 9, 9), images(4, 3, 6, 12, 7)]
    mean = MeanInput()
    differences = []
    for batch in batches:
        mean.add(batch)
        outputs = layer._conv_forward(batch, layer.weight + error, None)
        outputs = outputs - layer._conv_forward(batch, layer.weight, None)
        differences.append(outputs.movedim(1, -1).flatten(0, -2))
    expected = torch.cat(differences).mean(0)
    assert torch.allclose(mean.shift(layer, error), expected, atol=1e-5)


def test_the_shift_of_a_linear_layer() -> None:
    layer, error = nn.Linear(5, 3), images(0, 3, 5) * 0.01
    mean = MeanInput()
    for seed in (1, 2):
        mean.add(images(seed, 4 + seed, 5))
    rows = torch.cat([images(1, 5, 5), images(2, 6, 5)])
    assert torch.allclose(mean.shift(layer, error), (rows @ error.T).mean(0), atol=1e-6)


@torch.no_grad()
def test_means_of_outputs_are_kept_although_weights_are_rounded() -> None:
    layers = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.Linear(8, 4)
    model = nn.Sequential(layers[0], nn.AdaptiveAvgPool2d(1), nn.Flatten(), layers[1])
    for module in model.modules():
        module.qconfig = make_qconfig(replace(SMALL, per_channel=False), saturates=False)
    batch = images(0, 16, 3, 8, 8)
    expected = model(batch).mean(0)
    with mean_inputs(model) as means:
        model(batch)
    assert set(means) == {"0", "3"}
    rounded = {
        name: layer.qconfig.weight().rounded(layer.weight)
        for name, layer in (("0", model[0]), ("3", model[3]))
    }
    correct_biases(model, means)
    for name, weight in rounded.items():
        model.get_submodule(name).weight.data = weight
    assert torch.allclose(model(batch).mean(0), expected, atol=1e-4)
    assert model[0].bias is not None


def test_a_small_network_gains(tmp_path: Path) -> None:
    model, batch = small(), noise()
    logits = {}
    for corrected in (False, True):
        recipe = replace(SMALL, bias_correction=corrected, spare_bit="weights", backend="onednn")
        backend = BACKENDS.get("onednn")
        artifact = backend.build(model, recipe, batch.split(16), tmp_path / f"{corrected}.pt")
        with torch.inference_mode():
            logits[corrected] = artifact.load()(batch)
    with torch.inference_mode():
        expected = model(batch)
    assert decibels(expected, logits[True]) > decibels(expected, logits[False])
