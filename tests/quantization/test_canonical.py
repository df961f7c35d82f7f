"""The canonical model: torch's own layers under the user's paths, equal to the model."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.disguised_layers import CHANNELS, MIDDLES, Body, Flattening, conv, network
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ptqbench.errors import UserError
from ptqbench.measurement.macs import count_macs
from ptqbench.models.catalog import MODELS
from ptqbench.quantization.canonical import canonical_model, quantizable_model
from ptqbench.quantization.completion import complete_recipe
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.thresholds import Thresholds

LAYERS = (nn.Conv2d, nn.Linear)
TESTS = Path(__file__).parents[1]


def images(count: int = 3, side: int = 16) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that the graph calls, by path."""
    assert isinstance(model, fx.GraphModule)
    calls = (str(node.target) for node in model.graph.nodes if node.op == "call_module")
    return {path: model.get_submodule(path) for path in calls}


@pytest.mark.parametrize("name", [*MIDDLES, "flattening"])
def test_a_network_becomes_plain_layers_that_compute_the_same(name: str) -> None:
    model = network(name)
    state = copy.deepcopy(model.state_dict())
    canonical = canonical_model(model, images())
    with torch.inference_mode():
        for count in (1, 7):  # other numbers of images than the graph was made with
            torch.testing.assert_close(
                canonical(images(count)), model(images(count)), rtol=1e-4, atol=1e-5
            )
    weighted = [layer for layer in layers(canonical).values() if isinstance(layer, LAYERS)]
    assert weighted and all(type(layer) in LAYERS for layer in weighted)
    functions = {node.target for node in canonical.graph.nodes if node.op == "call_function"}
    assert not any("batch_norm" in str(function) for function in functions)
    multiplying = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default, F.conv2d, F.linear)
    assert functions.isdisjoint(multiplying)
    # The user's model is as it was.
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_layers_keep_the_paths_of_the_modules_that_they_come_from() -> None:
    kinds = {path: type(layer) for path, layer in layers(canonical_of("old weight norm")).items()}
    assert kinds == {
        "stem.0": nn.Conv2d,
        "stem.1": nn.ReLU,
        "middle.0": nn.Conv2d,
        "middle.1": nn.ReLU,
        "head": nn.Linear,
    }
    assert list(layers(canonical_of("activation in a BatchNorm")))[2:5] == [
        "middle.0",
        "middle.1.batch_norm",
        "middle.1.act",
    ]
    assert {"middle.conv2d", "middle.linear"} < set(layers(canonical_of("functions")))


def canonical_of(name: str) -> nn.Module:
    return canonical_model(network(name), images())


def test_even_padding_goes_into_the_convolution_and_uneven_stays() -> None:
    even = layers(canonical_of("padding=same"))["middle"]
    assert isinstance(even, nn.Conv2d) and even.padding == (2, 2)
    padded = [n for n in canonical_of("padding as TensorFlow").graph.nodes if n.target is F.pad]
    assert [node.args[1] for node in padded] == [[0, 1, 0, 1]]


def test_batch_norms_in_a_row_become_one() -> None:
    kinds = [type(layer) for layer in layers(canonical_of("two BatchNorms")).values()]
    assert kinds.count(nn.BatchNorm2d) == 1


class Shared(nn.Module):
    """Calls a convolution twice, with a BatchNorm each and an activation behind one of them."""

    def __init__(self, ends: int) -> None:
        super().__init__()
        self.conv, self.ends = conv(bias=False), ends
        self.norms = nn.ModuleList([nn.BatchNorm2d(CHANNELS) for _ in range(ends)])

    def forward(self, x: Tensor) -> Tensor:
        for index in range(2):
            x = F.relu(self.norms[index % self.ends](self.conv(x)))
        return x


def test_calls_of_a_layer_are_separated_only_where_they_end_differently() -> None:
    model = Body(Shared(2)).eval()
    canonical = canonical_model(model, images())
    calls = ("middle.conv.call_1", "middle.conv.call_2")
    assert [path for path in layers(canonical) if path.startswith("middle.conv")] == list(calls)
    with torch.inference_mode():
        torch.testing.assert_close(canonical(images(5)), model(images(5)))
    recipe = Recipe("shared", "x86", None, None, Thresholds())
    completed = complete_recipe(recipe, canonical, images(1), original=model)
    assert [group[:2] for group in completed.groups[1:]] == [
        (calls[0], "middle.norms.0"), (calls[1], "middle.norms.1")
    ]  # fmt: skip
    # The user's path names all calls.
    recipe = replace(recipe, keep_float=("middle.conv",))
    kept_float = complete_recipe(recipe, canonical, images(1), original=model)
    assert kept_float.int8_modules == completed.int8_modules - 2
    macs = count_macs(model, images(1))
    assert macs.share(["stem.0", *calls, "head"]) == 1
    assert set(layers(canonical_model(Body(Shared(1)).eval(), images()))) >= {"middle.conv"}


@pytest.mark.parametrize("name", RECIPES.names()[:6])
def test_the_graph_of_a_shipped_model_is_its_modules(name: str) -> None:
    spec = MODELS.get(name)
    torch.manual_seed(0)
    model = spec.factory(num_classes=16).eval()
    assert quantizable_model(model, RECIPES.get(name), images(2, 64)) is model
    canonical = canonical_model(model, images(2, 64))
    calls = layers(canonical)
    weighted = {n: m for n, m in model.named_modules() if isinstance(m, (*LAYERS, nn.BatchNorm2d))}
    assert set(weighted) <= set(calls)
    for path, layer in weighted.items():
        assert type(calls[path]) is type(layer)


# What is not the same twice, or depends on the other images


def refusal(middle: nn.Module) -> str:
    with pytest.raises(UserError) as caught:
        canonical_model(Body(middle).eval(), images())
    return str(caught.value)


class ActiveDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Counter(nn.Module):
    """Computes something else at every call, without drawing a random number."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def test_what_is_not_the_same_twice_is_refused_by_name_and_line() -> None:
    for middle, cause in ((ActiveDropout(), "dropout"), (Noise(), "randn_like")):
        text = refusal(middle)
        assert "not the same twice" in text and cause in text
        assert "'middle'" in text and "test_canonical.py, line" in text
    assert "changes from call to call" in refusal(Counter())


class Recurrent(nn.Module):
    """Recurrent layers over the rows of a map, with a dropout between them for training."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells = kind(CHANNELS, CHANNELS, 2, dropout=0.3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(0, 1)
        return self.cells(rows)[0].reshape(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_what_draws_random_numbers_in_training_only_stays(kind: type[nn.RNNBase]) -> None:
    middle = Recurrent(kind)
    model = Body(nn.Sequential(middle, nn.RReLU())).eval()
    canonical = canonical_model(model, images())
    with torch.inference_mode():
        torch.testing.assert_close(canonical(images(5)), model(images(5)), rtol=1e-4, atol=1e-5)
    middle.forward = lambda x: middle.cells.train() and Recurrent.forward(middle, x)  # type: ignore
    assert "not the same twice" in refusal(middle)


def test_logits_that_are_no_numbers_are_left_to_the_gates() -> None:
    model = network("padding=valid")
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    assert canonical_model(model, images()) is not model


def test_statistics_of_the_batch_are_refused_by_name() -> None:
    text = refusal(nn.Sequential(conv(), nn.BatchNorm2d(CHANNELS, track_running_stats=False)))
    assert "statistics of the batch" in text and "'middle.1'" in text
    text = refusal(nn.Sequential(nn.InstanceNorm2d(CHANNELS, track_running_stats=True)))
    assert "InstanceNorm with running statistics" in text and "'middle.0'" in text


# Sizes


class ByShape(nn.Module):
    """Reshapes by the height and width of its input, as channel shuffles do."""

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        x = x.view(count, 2, channels // 2, height, width).transpose(1, 2)
        return x.reshape(count, channels, height, width)


def test_a_graph_holds_for_the_other_size_that_is_asked_for() -> None:
    model = Body(ByShape()).eval()
    canonical = canonical_model(model, images(), sizes=[images(1, 32)])
    with torch.inference_mode():
        for side in (16, 32):
            torch.testing.assert_close(canonical(images(4, side)), model(images(4, side)))


class ClassToken(nn.Module):
    """Puts one learned value in front of those of every image, as vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, CHANNELS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        row = x.flatten(2)[:, :, :4, None]
        count = x.shape[0]
        mask = torch.ones(count, 1, 1, 1) * self.token.new_full((count, 1, 1, 1), 2.0)
        tokens = self.token.expand(count, -1, -1, -1).repeat(1, 1, 1, count // count)
        return torch.cat([tokens * mask, row], 2)


def test_a_file_that_was_traced_with_one_image_takes_several() -> None:
    model = Body(ClassToken()).eval()
    canonical = canonical_model(model, images())
    with torch.inference_mode():
        script = torch.jit.freeze(torch.jit.trace(canonical, images(1), check_trace=False).eval())
        torch.testing.assert_close(script(images(5)), model(images(5)), rtol=1e-4, atol=1e-5)


class ExactAttention(nn.Module):
    """Computes a part without automatic casts, and weights of it without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            with torch.no_grad():
                scale = x.float().mean((2, 3), keepdim=True)
            return x * torch.sigmoid(scale), F.relu(x)


class SumOfTwo(ExactAttention):
    def forward(self, x: Tensor) -> Tensor:
        first, second = super().forward(x)
        return first + second


def test_the_body_of_a_with_statement_is_part_of_the_graph() -> None:
    model = Body(SumOfTwo()).eval()
    canonical = canonical_model(model, images())
    with torch.inference_mode():
        torch.testing.assert_close(canonical(images(5)), model(images(5)), rtol=1e-4, atol=1e-5)
    assert not [node for node in canonical.graph.nodes if "wrap" in str(node.target)]


class ByValue(nn.Module):
    """Takes a branch by what is on the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


def test_a_model_that_cannot_be_captured_is_traced_as_it_is_without_a_word() -> None:
    code = (
        f"import sys; sys.path[:0] = {[str(path) for path in (TESTS, TESTS / 'quantization')]!r}; "
        "from test_canonical import *; model = Body(ByValue()).eval(); "
        "print(quantizable_model(model, RECIPES.get('resnet18'), images()) is model)"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    assert (run.stdout.decode().strip(), run.stderr.decode()) == ("True", "")


def test_defaults_of_forward_are_taken() -> None:
    model = Flattening().eval()
    assert canonical_model(model, images())(images()).shape == (3, 5)
