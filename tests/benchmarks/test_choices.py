"""The choices: changes that leave a network as it is, and scales that are the best of some."""

from __future__ import annotations

import copy
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_artifacts import SMALL, noise, small
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.quantization.completion import complete_recipe
from ptqbench.quantization.pairing import SUM, largest_sums, pairs_of, weight_scales
from ptqbench.recipes import Recipe

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.choices import channel_order, choice_record, equalization  # noqa: E402
from benchmarks.choices.activation_ranges import (  # noqa: E402
    best_range,
    observers_of_several,
    read_by_others,
    readers_of,
    rounded,
    whole_ranges,
)
from benchmarks.choices.calibrated_network import (  # noqa: E402
    Conversion,
    TwoLargest,
    calibrated_network,
    convert,
    logits_of,
)
from benchmarks.choices.choice_list import CHOICES, SHIPPED  # noqa: E402
from benchmarks.choices.graph_spaces import (  # noqa: E402
    permute,
    spaces_of,
    traced_with_shapes,
)
from benchmarks.choices.output_error import (  # noqa: E402
    InputRows,
    fitted_integers,
    least_error,
    output_errors,
)


class Blocks(nn.Module):
    """Residual sums, squeeze-excitation, a concatenation and a linear layer."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU6) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12)
        self.expand, self.expand_norm = nn.Conv2d(12, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depthwise = nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 7, 1), nn.Conv2d(7, 24, 1)
        self.project, self.project_norm = nn.Conv2d(24, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.left, self.right = nn.Conv2d(12, 9, 3, 1, 1), nn.Conv2d(12, 9, 1, groups=3)
        self.last = nn.Conv2d(18, 10, 1)
        self.fc1, self.fc2 = nn.Linear(10, 15), nn.Linear(15, 5)
        self.relu, self.cap = nn.ReLU(), activation()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem_norm(self.stem(x)))
        y = torch.nn.functional.relu6(self.expand_norm(self.expand(x)))
        y = self.cap(self.depthwise_norm(self.depthwise(y)))
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = x + self.project_norm(self.project(y))
        x = self.cap(self.last(torch.cat([self.left(x), self.right(x)], 1)))
        x = torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)
        return self.fc2(self.relu(self.fc1(x)))


def blocks(seed: int = 0, activation: type[nn.Module] = nn.ReLU6) -> Blocks:
    torch.manual_seed(seed)
    model = Blocks(activation).eval()
    nn.init.normal_(model.last.weight)  # some channels reach the corner of the ReLU6
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -0.5, 1)
            nn.init.uniform_(module.running_var, 0.2, 3)
            nn.init.normal_(module.running_mean)
    return model


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 14, 14, generator=torch.Generator().manual_seed(3))


def integers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_channels_of_a_space_have_any_order() -> None:
    model, batch = blocks(), images()
    expected = model(batch)
    spaces = {
        tuple(space.consumers): space
        for space in spaces_of(traced_with_shapes(model, batch[:1]))
        if not space.fixed
    }
    # The right one reads groups of three channels; what is concatenated has a fixed place.
    assert set(spaces) == {("squeeze", "project"), ("excite",), ("fc1",), ("fc2",)}
    assert set(spaces["squeeze", "project"].producers) == {"expand", "excite"}
    for seed, space in enumerate(spaces.values()):
        order = torch.randperm(space.channels, generator=torch.Generator().manual_seed(seed))
        permute(model, space, order)
        assert torch.allclose(model(batch), expected, atol=1e-5)
    assert not torch.equal(model.project.weight, blocks().project.weight)


@torch.no_grad()
def test_ordered_channels_lose_fewer_bits_and_give_the_same_logits() -> None:
    model, batch = blocks(), images()
    changed = copy.deepcopy(model)
    changes = channel_order.order_channels(changed, traced_with_shapes(changed, batch[:1]))
    assert {"project", "fc2"} <= set(changes)
    for path, (before, after) in changes.items():
        assert before == pytest.approx(channel_order.lost_bits(model.get_submodule(path).weight))
        assert after == pytest.approx(channel_order.lost_bits(changed.get_submodule(path).weight))
    assert sum(after for _, after in changes.values()) < sum(
        before for before, _ in changes.values()
    )
    assert torch.allclose(changed(batch), model(batch), atol=1e-5)


@pytest.mark.parametrize("channels", [6, 7])
def test_the_order_of_a_few_channels_is_almost_the_best_of_all(channels: int) -> None:
    weights = integers(channels, 5, channels, 1, 1)
    costs = channel_order.pair_costs(weights)

    def cost(order: tuple[int, ...]) -> float:
        pairs = zip(order[0::2], order[1::2], strict=False)
        return sum(float(costs[a, b]) for a, b in pairs)

    order = channel_order.best_order(costs).tolist()
    assert sorted(order) == list(range(channels))
    start = cost(tuple(range(channels)))
    least = min(map(cost, itertools.permutations(range(channels))))
    assert cost(tuple(order)) <= least + 0.2 * (start - least)


def test_the_cost_of_a_pair_is_what_exceeds_the_largest_weight() -> None:
    weights = torch.tensor([[1.0, 0.5, -0.8, 0.25], [-2.0, -1.0, 0.5, 1.0]])
    costs = channel_order.pair_costs(weights)
    expected = torch.zeros(4, 4)
    expected[0, 1] = expected[1, 0] = 0.5**4 + 0.5**4
    expected[0, 3] = expected[3, 0] = 0.25**4
    off_diagonal = ~torch.eye(4, dtype=torch.bool)
    assert torch.allclose(costs[off_diagonal], expected[off_diagonal])


@torch.no_grad()
@pytest.mark.parametrize("factors", [equalization.by_weights, equalization.by_activations])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_equalized_channels_give_the_same_logits(
    factors: equalization.Factors, activation: type[nn.Module]
) -> None:
    model, batch = blocks(activation=activation), images()
    changed = copy.deepcopy(model)
    traced = traced_with_shapes(changed, batch[:1])
    links = equalization.links_of(traced)
    assert [(link.first, link.last, link.capped) for link in links] == [
        ("expand", "depthwise", True),
        ("squeeze", "excite", False),
        ("last", "fc1", activation is nn.ReLU6),
        ("fc1", "fc2", False),
    ]
    maxima = equalization.channel_maxima(traced, links, batch.split(4))
    count = equalization.equalize(changed, links, maxima, factors)
    assert count > 20
    assert torch.allclose(changed(batch), model(batch), atol=1e-5)
    again = equalization.channel_maxima(traced, links, batch.split(4))
    for link in links:
        # The range of the activations stays, and channels get closer to it.
        before, after = maxima[link.output], again[link.output]
        if factors is equalization.by_activations:
            assert float(after.max()) == pytest.approx(float(before.max()), rel=1e-4)
            assert float((after / after.max()).mean()) > float((before / before.max()).mean())


def test_a_channel_that_reaches_the_corner_of_a_relu6_stays() -> None:
    maxima = torch.tensor([6.0, 5.0, 3.0, 0.3, 0.0])
    factors = equalization.usable_factors(maxima.clone(), maxima, capped=True)
    assert factors.tolist() == pytest.approx([1, 1, 3 / 4.5, 0.3 / 4.5, 1])
    free = equalization.usable_factors(maxima.clone(), maxima, capped=False)
    assert free.tolist() == pytest.approx([1, 5 / 6, 0.5, 1 / 16, 1])


LAYERS = {
    "strided": nn.Conv2d(6, 8, 3, 2, 1),
    "depthwise": nn.Conv2d(6, 6, 3, 1, 1, groups=6),
    "dilated": nn.Conv2d(6, 4, (3, 1), 1, (2, 0), dilation=(2, 1)),
    "groups": nn.Conv2d(6, 4, (1, 3), (1, 2), (0, 1), groups=2),
    "linear": nn.Linear(6, 5),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", LAYERS)
def test_the_error_of_outputs_is_that_of_the_layer(kind: str) -> None:
    layer = LAYERS[kind]
    batch = integers(1, 3, 6) if kind == "linear" else integers(1, 3, 6, 9, 8) + 0.5
    error = integers(2, *layer.weight.shape) * 0.01
    sample = InputRows(layer, images=len(batch))  # few enough that all are kept
    sample.add(batch)
    other = copy.deepcopy(layer)
    other.weight += error
    outputs = (other(batch) - layer(batch)).movedim(1, -1).flatten(0, -2)
    for centred in (False, True):
        expected = (outputs - centred * outputs.mean(0)).square().mean(0)
        computed = output_errors(sample.rows(), error.flatten(1), centred=centred)
        assert torch.allclose(computed, expected, rtol=1e-3)


@pytest.mark.parametrize("shape", [(40, 7, 1, 1), (40, 6, 3, 3), (40, 9), (40, 1, 3, 3)])
def test_fitted_integers_are_near_and_never_saturate(shape: tuple[int, ...]) -> None:
    weights = integers(5, *shape)
    scales = weight_scales(weights, None) * 0.8
    fitted = fitted_integers(weights, scales, "channels")
    most, least = largest_sums(pairs_of(fitted, "channels"))
    assert float(most.max()) <= SUM
    assert float(least.min()) >= -SUM
    alone = fitted_integers(weights, scales, None)
    assert float(fitted.abs().max()) <= 127
    assert bool((fitted.abs() <= alone.abs()).all())
    assert bool((fitted * alone >= 0).all())
    if shape[1] == 1:
        assert torch.equal(fitted, alone)
    else:
        changed = pairs_of(fitted - alone, "channels").abs().sum(-1)
        excess = pairs_of(alone, "channels")
        same = excess.prod(-1) > 0
        expected = torch.where(same, (excess.abs().sum(-1) - SUM).clamp(min=0), 0.0)
        assert torch.equal(changed, expected)
        assert float(expected.max()) > 0


def test_the_scales_have_the_least_error_of_those_tried() -> None:
    weights = integers(6, 12, 8, 3, 3)
    weights[:, 0, 1, 1] *= 2.5
    rows = integers(7, 200, 1, 72) + 0.3
    fitted = least_error(weights, rows, "channels", centred=True)
    shipped = TwoLargest()  # needs more room than pairs do
    error = output_errors(rows, (fitted.values - weights).flatten(1), centred=True)
    pairs = weight_scales(weights, "channels")
    plain = fitted_integers(weights, pairs, "channels") * pairs.view(-1, 1, 1, 1)
    before = output_errors(rows, (plain - weights).flatten(1), centred=True)
    assert bool((error <= before).all())
    assert float(error.sum()) < 0.97 * float(before.sum())
    whole = fitted.values / fitted.scales.view(-1, 1, 1, 1)
    assert torch.allclose(whole, whole.round(), atol=1e-4)
    shipped(weights)
    assert bool((shipped.calculate_qparams()[0] >= pairs).all())


def test_the_two_largest_weights_of_a_sign_determine_a_scale() -> None:
    observer = TwoLargest()
    observer(torch.tensor([[1.0, 0.5, -3.0, 0.9], [-1.0, -0.5, 0.25, 2.0]]))
    scales, _ = observer.calculate_qparams()
    assert (scales * 127).tolist() == pytest.approx([3.0, 2.25])


def test_conversions_are_those_of_the_package(tmp_path: Path) -> None:
    model, batch = small(), noise()
    recipe: Recipe = replace(SMALL, backend="onednn")
    backend = BACKENDS.get("onednn")
    pairing = backend.pairing if backend.saturates() else None
    completed = complete_recipe(recipe, model, batch[:1])
    with engine_set("onednn"):
        network = calibrated_network(model, completed, batch.split(4), images=8, example=batch[:1])
    logits = {}
    for changes, choice in (
        ({}, Conversion()),
        (
            {"spare_bit": "weights", "bias_correction": False, "observer": "minmax"},
            Conversion(spare_bit="weights", bias_correction=False, ranges="whole"),
        ),
    ):
        artifact = backend.build(
            model, replace(recipe, **changes), batch.split(4), tmp_path / "int8.pt"
        )
        with torch.inference_mode():
            expected = artifact.load()(batch)
        logits[choice] = logits_of(convert(network, choice, pairing), [batch])
        assert torch.equal(logits[choice], expected)
    for choice in (Conversion(least_error=True), Conversion(ranges="output")):
        other = logits_of(convert(network, choice, pairing), [batch])
        assert not torch.equal(other, logits[Conversion()])
    readers = readers_of(network.prepared, batch[:1])
    assert sorted(readers.values()) == [["conv1"], ["conv2"], ["depthwise"], ["fc"], ["stem.0"]]
    assert set(readers) <= set(whole_ranges(network.prepared))
    others = read_by_others(network.prepared, itertools.chain(*readers.values()))
    several = observers_of_several(network.prepared)
    alone = [names for observer, names in readers.items() if observer not in several]
    assert sorted(alone) == [["conv1"], ["conv2"], ["depthwise"]]  # pixels, and means over pixels
    assert ["conv1"] in [names for observer, names in readers.items() if observer in others]


def test_activations_are_rounded_as_torch_does() -> None:
    values = integers(8, 500)
    for low, high in ((-1.0, 2.0), (0.0, 1.5), (0.5, 2.5), (-2.0, -0.5)):
        observer = MinMaxObserver(dtype=torch.quint8)
        observer.min_val, observer.max_val = torch.tensor(low), torch.tensor(high)
        scale, zero = observer.calculate_qparams()
        expected = torch.fake_quantize_per_tensor_affine(values, scale, zero.int(), 0, 255)
        assert torch.allclose(rounded(values, low, high), expected, atol=1e-5)


def test_a_range_may_leave_out_what_layers_do_not_read() -> None:
    rows = integers(9, 300, 1, 4).abs()
    rows[0, 0, 3] = 40.0
    whole = 0.0, 40.0
    deaf = integers(10, 5, 4)
    deaf[:, 3] = 0
    assert best_range(whole, whole, [(rows, deaf)])[1] < 20
    assert best_range(whole, whole, [(rows, deaf)], only_layers=False)[1] > 20
    listening = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    assert best_range((0.0, 10.0), whole, [(rows, listening)]) == whole


def entry(name: str, shipped: float, **rows: float | None) -> choice_record.Entry:
    """A network on which other choices have an SQNR; None: nothing to change."""
    others = {
        choice.name: {"same": True} if value is None else {"sqnr_db": value}
        for choice, value in zip(CHOICES[1:], rows.values(), strict=False)
    }
    identity = {"cpu": "A", "instruction_set": "avx2", "torch": "1", "images": 9}
    return {
        "name": name,
        "identity": identity | {"calibration_images": 4},
        "command": f"measure {name}",
        "rows": {SHIPPED: {"sqnr_db": shipped}} | others,
    }


def test_the_table_has_differences_and_their_mean() -> None:
    text = choice_record.body(
        [entry("one", 30.0, a=29.0, b=None), entry("two", 20.0, a=22.0, b=21)]
    )
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert lines[2][1:] == ["30.0", "20.0", " |"]
    assert lines[3][1:] == ["-1.0", "+2.0", "+0.50 |"]
    assert lines[4][1:] == ["=", "+1.0", "+0.50 |"]
    assert lines[5][1:] == ["–", "–", " |"]
    assert "two: 9 images, calibrated on 4, `measure two`" in text


def test_the_document_shows_the_record() -> None:
    content = json.loads((ROOT / "fixtures" / "choices.json").read_text("utf-8"))
    assert json.loads(choice_record.render(content["networks"])) == content
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    assert choice_record.body(content["networks"]) in text


def test_a_run_goes_on_from_the_same_conditions_only(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one.json"
    first = entry("one", 30.0)
    choice_record.write_entry(path, first)
    identity = first["identity"]
    assert choice_record.read_entry(path, "one", identity, "new")["rows"] == first["rows"]
    assert choice_record.read_entry(path, "one", identity, "new")["command"] == "new"
    assert choice_record.read_entry(path, "one", identity | {"images": 8}, "new")["rows"] == {}


def test_networks_are_replaced_by_name_and_put_in_order() -> None:
    before = [entry("one", 1.0), entry("two", 2.0)]
    entries = choice_record.merged(before, [entry("one", 3.0), entry("zero", 0.0)], ["two"])
    assert [each["name"] for each in entries] == ["two", "one", "zero"]
    assert entries[1]["rows"][SHIPPED]["sqnr_db"] == 3.0
    assert json.loads(choice_record.render(entries))["networks"] == entries
