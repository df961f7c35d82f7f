"""Probe weights of a user's own network: made where they can be, else refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ptqbench.errors import UserError
from ptqbench.models.catalog import ModelSpec
from ptqbench.settings.weights_specifier import PROBE
from ptqbench.weights.open_weights import probe_weights
from ptqbench.weights.probe import probe_cache
from ptqbench.weights.probe.network import compute_probe, preprocessing_of

ORIGIN = "nets.py, line 3"


def custom_spec(net: Callable[[int], nn.Module], side: int = 64) -> ModelSpec:
    return ModelSpec("nets.py:net", net, input_size=(3, side, side), origin=ORIGIN)


class Net(nn.Module):
    """Convolution, pooling and a head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))
        self.head = nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).relu().mean((2, 3)))


class Scaled(Net):
    """Keeps a tensor beside its parameters, which its constructor fills."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.scale = torch.full((16, 1, 1), 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.features(x) * self.scale).relu().mean((2, 3)))


class Auxiliary(Net):
    """Has a layer after the head that only training calls."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.auxiliary = nn.Linear(16, num_classes)


class Large(Net):
    """Takes 96×96 and nothing else."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.head = nn.Linear(16 * 23 * 23, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).relu().flatten(1))


class Broken(Net):
    """Raises where it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).view(-1, 7))


class Tokens(Net):
    """Gives its head a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(2).transpose(1, 2)).mean(1)


def head_of_patches(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, num_classes, 4), nn.Flatten())


@pytest.mark.parametrize("net", [Net, Scaled])
def test_weights_that_can_be_made(net: type[nn.Module]) -> None:
    probe = compute_probe(custom_spec(net), 0, most_images=64)
    model = net(16)
    model.load_state_dict(probe.state)
    assert model(torch.rand(2, 3, 64, 64)).isfinite().all()
    assert probe.head == "head"


def test_pictures_have_the_size_that_the_network_is_registered_with() -> None:
    spec = custom_spec(Large, side=96)
    assert preprocessing_of(spec).crop == 96
    assert compute_probe(spec, 0, most_images=64).state["head.weight"].shape == (16, 16 * 23 * 23)


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (lambda n: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "no convolution or lin"),
        (lambda n: Net(1000), "head, gives 1000 numbers instead of one for each of the 16"),
        (Auxiliary, "its last layer, auxiliary, is not called"),
        (head_of_patches, "its last layer, 1, is a convolution of more than 1×1"),
        (Tokens, "its last layer, head, receives N×225×16 values"),
        (Broken, f"RuntimeError: .* at {Path(__file__).name}, line "),
    ],
)
def test_networks_that_are_refused_by_name(net: Callable[[int], nn.Module], why: str) -> None:
    with pytest.raises(UserError) as caught:
        compute_probe(custom_spec(net), 0, most_images=64)
    message = str(caught.value).replace(str(Path(__file__).parent) + "/", "")
    assert message.startswith(f"Probe weights cannot be computed for nets.py:net ({ORIGIN}): ")
    assert message.endswith("with --weights, or set `weights` in its table of the settings.")
    assert re.search(why, message), message


def test_weights_of_code_that_may_change_are_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a user's own network was looked for in the cache")

    monkeypatch.setattr(probe_cache, "save", never)
    monkeypatch.setattr(probe_cache, "restore", never)
    weights = probe_weights(custom_spec(Net))
    assert weights.source == PROBE
    assert weights.state["head.weight"].shape == (16, 16)
