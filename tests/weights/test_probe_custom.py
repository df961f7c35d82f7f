"""Probe weights of a user's own network: made where they can be, else refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ptqbench.data.fixture.images import FixtureImages
from ptqbench.data.fixture.manifest import load_manifest
from ptqbench.data.fixture.shard_cache import ShardCache, default_cache_dir
from ptqbench.errors import UserError
from ptqbench.models.catalog import ModelSpec
from ptqbench.settings.weights_specifier import PROBE
from ptqbench.weights.open_weights import probe_weights
from ptqbench.weights.probe import probe_cache
from ptqbench.weights.probe.layer_scaling import gates_of, scale_layers
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


class Gated(Net):
    """Squeeze-excitation as other libraries name its parts, in front of the head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.excite = nn.Module()
        self.excite.conv_reduce, self.excite.conv_expand = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.excite.act1, self.excite.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        x, part = self.features(x).relu(), self.excite
        squeezed = part.act1(part.conv_reduce(x.mean((2, 3), keepdim=True)))
        return self.head((x * part.gate(part.conv_expand(squeezed))).mean((2, 3)))


def test_gates_hardly_vary_from_picture_to_picture() -> None:
    torch.manual_seed(0)
    model, images = Gated(4).eval(), torch.randn(32, 3, 24, 24)
    assert list(gates_of(model)) == [model.excite.conv_expand]
    assert list(gates_of(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()))) != []
    seen = []
    scale_layers(model, images, "head")
    model.excite.conv_expand.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.inference_mode():
        model(images)
    assert float(seen[0].std(correction=0)) == pytest.approx(0.1, rel=0.01)


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


class Unused(Auxiliary):
    """Calls the layer after the head, and uses nothing of it."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x).relu().mean((2, 3))
        logits = self.head(maps)
        self.auxiliary(maps)
        return logits


class HeadFirst(nn.Module):
    """Registers its head before everything else, and computes the rest without gradients."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(16, num_classes)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.act(self.features(x)).mean((2, 3))
        return self.head(x)


class Two(Auxiliary):
    """Adds the outputs of two heads."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).relu().mean((2, 3))
        return self.head(x) + self.auxiliary(x)


class OneDimension(nn.Module):
    """Treats rows as channels of a signal, with the head registered first and used last."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Conv1d(32, num_classes, 1)
        self.stem = nn.Conv1d(3 * 64, 32, 5, bias=False)
        self.norm = nn.BatchNorm1d(32)
        self.mix = nn.Conv1d(32, 32, 3, groups=32)
        self.wide = nn.Linear(28, 28, bias=False)
        self.flat = nn.BatchNorm1d(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x.flatten(1, 2))).relu()
        x = self.mix(x)[..., ::2]
        x = self.wide(torch.nn.functional.adaptive_avg_pool1d(x, 28))
        return self.head(self.flat(x).relu()).mean(2)


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


@pytest.mark.parametrize("net", [Net, Scaled, Auxiliary, Unused, HeadFirst])
def test_weights_that_can_be_made(net: type[nn.Module]) -> None:
    probe = compute_probe(custom_spec(net), 0, most_images=64)
    model = net(16)
    model.load_state_dict(probe.state)
    assert model(torch.rand(2, 3, 64, 64)).isfinite().all()
    assert probe.head == "head"


def test_one_dimension_is_settled_like_two() -> None:
    """Statistics of BatchNorm1d against NumPy, and the head's own leave-one-out accuracy."""
    spec = custom_spec(OneDimension)
    probe = compute_probe(spec, 0, most_images=320)
    assert probe.head == "head"
    model = OneDimension(16).eval()
    model.load_state_dict(probe.state)
    images = FixtureImages(
        ShardCache(load_manifest(), "train", default_cache_dir()), preprocessing_of(spec), 400
    )
    pixels, labels = next(images.batches(0, 320, 320))
    seen: dict[str, Tensor] = {}
    for name in ("norm", "flat"):
        module = model.get_submodule(name)
        module.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
    with torch.inference_mode():
        logits = model(pixels[:128])  # as many as layers are settled on
    for name, value in seen.items():
        array = value.double().numpy()
        state = probe.state
        mean, variance = array.mean(axis=(0, 2)), array.var(axis=(0, 2))
        np.testing.assert_allclose(state[f"{name}.running_mean"], mean, atol=1e-3)
        np.testing.assert_allclose(state[f"{name}.running_var"], variance, rtol=1e-2)
    assert probe.scales.keys() == {"stem.weight", "mix.weight", "wide.weight"}
    assert float((logits.argmax(1) == labels[:128]).float().mean()) > 0.2  # chance: 0.06


def test_pictures_have_the_size_that_the_network_is_registered_with() -> None:
    spec = custom_spec(Large, side=96)
    assert preprocessing_of(spec).crop == 96
    assert compute_probe(spec, 0, most_images=64).state["head.weight"].shape == (16, 16 * 23 * 23)


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (lambda n: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "no convolution or lin"),
        (lambda n: Net(1000), "head, gives 1000 numbers instead of one for each of the 16"),
        (Two, "its logits are made by head and auxiliary, not by one layer"),
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
