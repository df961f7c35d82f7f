"""Multiply-adds: against torch's own counter, torchvision's published numbers, and by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.measurement.fastest import pick_fastest
from ptqbench.measurement.layer_matching import match_graphs
from ptqbench.measurement.macs import CountedModel, Macs, count_macs
from ptqbench.models.catalog import MODELS
from ptqbench.models.import_torchvision import import_torchvision

if TYPE_CHECKING:
    from conftest import Workshop

ENGINE = next(b.name for b in TORCH_ENGINES if b.availability() is None)
SMALL = ["resnet18", "mobilenet_v3_large", "squeezenet1_1", "shufflenet_v2_x0_5", "swin_t"]


def module(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.get(name).factory(16).eval()


@pytest.mark.parametrize("name", SMALL)
def test_as_many_as_torchs_own_counter_counts(name: str) -> None:
    model, example = module(name), torch.randn(1, 3, 64, 64)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(example)
    assert 2 * count_macs(model, example).total == counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_b_16", "swin_v2_t"])
def test_as_many_as_torchvision_publishes(name: str) -> None:
    """In units of 10⁹ at the standard input, for the thousand classes of ImageNet."""
    spec = MODELS.get(name)
    published = next(iter(import_torchvision().models.get_model_weights(name))).meta["_ops"]
    macs = count_macs(spec.factory(1000).eval(), torch.zeros(1, *spec.input_size))
    assert macs.total / 1e9 == pytest.approx(published, rel=1e-3, abs=1e-3)


def test_layers_are_counted_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),  # 16×16 -> 8×8
        nn.ConvTranspose2d(6, 3, 2, stride=2),  # 8×8 -> 16×16
        nn.Flatten(),
        nn.Linear(3 * 16 * 16, 5),
    ).eval()
    expected = {
        "0": 6 * 8 * 8 * (4 // 2) * 3 * 3,
        "1": 6 * 8 * 8 * 3 * 2 * 2,
        "3": 3 * 16 * 16 * 5,
    }
    assert count_macs(model, torch.randn(2, 4, 16, 16)) == Macs(expected, 0)


class Attention(nn.Module):
    """Attention with separate matrix products, and weights that are only arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.shared = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = F.linear(x, self.mixed.weight, self.mixed.bias).chunk(3, -1)
        x = self.out((query @ key.transpose(1, 2)).softmax(-1) @ value)
        return self.shared(self.shared(x))


def test_products_of_activations_are_told_from_layers() -> None:
    macs = count_macs(Attention().eval(), torch.randn(3, 5, 8))
    assert macs.layers == {"mixed": 5 * 8 * 24, "out": 5 * 8 * 8, "shared": 2 * 5 * 8 * 8}
    assert macs.products == 2 * 5 * 5 * 8


@pytest.mark.parametrize("fast", [True, False])
def test_attention_modules_count_whichever_way_torch_runs_them(fast: bool) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            mixed: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return mixed

    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        with torch.inference_mode():
            macs = count_macs(Block().eval(), torch.randn(4, 5, 8))
        assert torch.backends.mha.get_fastpath_enabled() is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert macs.layers == {
        "attention.in_proj_weight": 5 * 8 * 24,
        "attention.out_proj": 5 * 8 * 8,
    }
    assert macs.products == 2 * 5 * 5 * 8


@pytest.mark.parametrize(
    "name", ["resnet18", "swin_t", pytest.param("vit_b_16", marks=pytest.mark.slow)]
)
def test_layers_have_the_names_that_the_graph_gives_them(name: str) -> None:
    side = 224 if name == "vit_b_16" else 64
    model, example = module(name), torch.randn(1, 3, side, side)
    with torch.no_grad():
        macs = count_macs(model, example)
    paths = {o.path for o in read_float_graph(model, example).float_layers}
    assert paths <= set(macs.layers)
    if name != "vit_b_16":  # whose attention is one operator in the graph
        assert paths == set(macs.layers)


def test_the_first_call_counts_and_the_others_are_plain() -> None:
    model, example = module("squeezenet1_1"), torch.randn(1, 3, 64, 64)
    calls: list[None] = []
    model.register_forward_hook(lambda *_: calls.append(None))
    counted = CountedModel(model)
    pick_fastest({"eager": counted}, example, rounds=1)
    before = len(calls)
    assert counted.macs(example) == count_macs(module("squeezenet1_1"), example)
    assert len(calls) == before
    with torch.no_grad():
        assert torch.equal(counted(example), model(example))
    assert CountedModel(model).macs(example) == counted.macs(example)


def test_the_int8_share_is_that_of_the_layers_in_the_artifact(workshop: Workshop) -> None:
    name, keep = "resnet18", ("conv1", "fc")
    model, recipe = workshop.model(name), workshop.recipe(name, keep_float=keep, int8_modules=19)
    example = workshop.calibration[:1]
    macs = count_macs(model, example)
    whole = workshop.built(name, ENGINE).artifact
    part = BACKENDS.get(ENGINE).build(
        model, recipe, workshop.batches(), workshop.folder / "part.int8.pt"
    )
    reference = read_float_graph(model, example)
    shares = []
    for artifact in (whole, part):
        matches = match_graphs(BACKENDS.get(ENGINE).layers(artifact.path), reference).matches
        shares.append(macs.share(m.name for m in matches if m.layer.is_int8_layer))
    in_float = sum(macs.layers[layer] for layer in keep)
    assert shares[0] == 1.0
    assert shares[1] == pytest.approx(1 - in_float / macs.total, abs=1e-12)
    assert 0.8 < shares[1] < 1


def test_a_share_of_nothing_is_unknown() -> None:
    assert Macs({}, 0).share(["conv1"]) is None
    assert Macs({"conv1": 3}, 1).share(["conv1", "conv1", "other"]) == 0.75
