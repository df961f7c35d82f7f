"""The saturation gate on clean models and on planted defects, against plain integers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from helpers.small_artifacts import CLEAN, SMALL, Built, build, judge, noise, shipped, small

from ptqbench.backends.cpu import instruction_set, multiplies_into_16_bits
from ptqbench.backends.graph import IntegerWeights, Operator, Role
from ptqbench.backends.integer_reference import (
    LayerTraffic,
    QuantizedTensor,
    exact_output,
    exact_sum,
    leaves_int16,
)
from ptqbench.backends.torch_engines.saturation_probe import probe_engine
from ptqbench.gates import GateResult, Verdict
from ptqbench.measurement.saturation import Saturation, compare, measure_saturation

KINDS = {"stem.0": "convolution", "depthwise": "depthwise convolution", "fc": "linear"}


def measure(built: Built) -> Saturation:
    return measure_saturation(built.artifact.path, built.backend, built.reference, built.images[:2])


def gate(saturation: Saturation) -> GateResult:
    return judge("saturation", saturation=saturation)


def heavy(layer: str, path: Path, **options: object) -> Built:
    """A small network in which all weights of one layer are equally large, and so are inputs."""
    model = small()
    model.get_submodule(layer).weight.data.fill_(0.2)  # type: ignore[union-attr, operator]
    # The mean over positions, which fc reads, is large in no channel otherwise.
    model.bn3.bias.data.fill_(3.0)
    images = noise() * 0.1 + 1
    return build(model, path, images=images, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "backend", "flow"), CLEAN)
def test_passes_clean_models(name: str, backend: str, flow: str) -> None:
    saturation = measure(shipped(name, backend, flow))
    result = gate(saturation)
    assert result.verdict is Verdict.PASS, result.detail
    assert result.observed == 1.0
    assert all(layer.outputs for layer in saturation.layers)
    if backend != "qnnpack":
        assert "No layer can saturate on a CPU without VNNI either" in result.detail


@pytest.mark.parametrize("layer", KINDS)
def test_names_the_layer_that_saturates(layer: str, tmp_path: Path) -> None:
    saturation = measure(heavy(layer, tmp_path / "a.pt", saturates=False))
    result = gate(saturation)
    risky = {x.name for x in saturation.layers if x.by_weights}
    assert layer in risky
    if probe_engine("fbgemm")[KINDS[layer]] < 1:
        assert result.verdict is Verdict.FAIL, result.detail
        broken = {x.name for x in saturation.layers if x.wrong}
        assert layer in broken
        # Whatever deviates was foreseen from the weights and the inputs.
        assert broken <= {x.name for x in saturation.layers if x.by_images}
        assert layer in result.detail
    else:
        assert layer not in {x.name for x in saturation.layers if x.wrong}


@pytest.mark.parametrize("layer", KINDS)
@pytest.mark.parametrize("spare_bit", ["pairs", "weights"])
def test_weights_that_give_up_range_cannot_saturate(
    spare_bit: Literal["pairs", "weights"], layer: str, tmp_path: Path
) -> None:
    recipe = replace(SMALL, spare_bit=spare_bit)
    saturation = measure(heavy(layer, tmp_path / "a.pt", recipe=recipe, saturates=True))
    assert gate(saturation).verdict is Verdict.PASS
    assert not any(x.by_weights for x in saturation.layers)


def test_seven_bit_activations_do_not_on_these_images(tmp_path: Path) -> None:
    recipe = replace(SMALL, spare_bit="activations")
    saturation = measure(heavy("stem.0", tmp_path / "a.pt", recipe=recipe, saturates=True))
    assert any(x.by_weights for x in saturation.layers)
    result = gate(saturation)
    assert result.verdict is Verdict.PASS, result.detail


def test_qnnpack_is_exact_with_full_ranges(tmp_path: Path) -> None:
    saturation = measure(heavy("stem.0", tmp_path / "a.pt", backend="qnnpack", saturates=False))
    assert set(saturation.probe.values()) == {1.0}
    assert gate(saturation).verdict is Verdict.PASS


def test_probe_agrees_with_what_the_instruction_set_promises() -> None:
    shares = probe_engine("fbgemm")
    if multiplies_into_16_bits(instruction_set()):
        assert shares["convolution"] == pytest.approx(0.5, abs=0.02)
        assert shares["linear"] == pytest.approx(0.5, abs=0.02)
    else:
        assert shares["convolution"] == shares["linear"] == 1.0
    # fbgemm's depthwise kernels multiply into 16 bits whatever the CPU has.
    assert shares["depthwise convolution"] == pytest.approx(0.56, abs=0.02)


def test_says_what_would_saturate_elsewhere(tmp_path: Path) -> None:
    saturation = measure(heavy("stem.0", tmp_path / "a.pt", saturates=False))
    here = tuple(replace(layer, wrong=0) for layer in saturation.layers)
    result = gate(replace(saturation, layers=here, probe=dict.fromkeys(saturation.probe, 1.0)))
    assert result.verdict is Verdict.PASS
    assert "On a CPU without VNNI" in result.detail
    assert "stem.0" in result.detail


def test_what_could_not_be_run_apart_is_unverified(tmp_path: Path) -> None:
    saturation = measure(heavy("stem.0", tmp_path / "a.pt", saturates=False))
    blind = tuple(replace(x, outputs=0, wrong=0, by_images=x.by_weights) for x in saturation.layers)
    result = gate(replace(saturation, layers=blind, probe={"linear": 0.5}, error="no such graph"))
    assert result.verdict is Verdict.UNVERIFIED
    assert "no such graph" in result.detail


def weights(shape: tuple[int, ...], groups: int = 1, seed: int = 0) -> IntegerWeights:
    generator = torch.Generator().manual_seed(seed)
    integers = torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)
    scales = torch.rand(shape[0], generator=generator, dtype=torch.float64) * 0.01 + 0.01
    geometry = {"stride": (2, 1), "padding": (1, 1), "dilation": (1, 1), "groups": groups}
    return IntegerWeights(
        integers,
        scales,
        torch.zeros(shape[0], dtype=torch.long),
        True,
        torch.randn(shape[0], generator=generator),
        **(geometry if len(shape) > 2 else {}),  # type: ignore[arg-type]
    )


def source(shape: tuple[int, ...]) -> QuantizedTensor:
    integers = torch.randint(
        0, 256, shape, generator=torch.Generator().manual_seed(5), dtype=torch.uint8
    )
    return QuantizedTensor(integers, 0.02, 121)


@pytest.mark.parametrize(("groups", "channels"), [(1, 4), (4, 1), (2, 2)])
def test_exact_sums_are_those_of_plain_integers(groups: int, channels: int) -> None:
    packed = weights((4, channels, 3, 3), groups)
    x = source((1, 4, 5, 6)).integers.numpy().astype(np.int64) - 121
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    w = packed.integers.numpy().astype(np.int64)
    expected = np.zeros((4, 3, 6), dtype=np.int64)
    for out, row, column in np.ndindex(expected.shape):
        first = out // (4 // groups) * channels
        patch = padded[0, first : first + channels, 2 * row : 2 * row + 3, column : column + 3]
        expected[out, row, column] = (patch * w[out]).sum()
    assert np.array_equal(exact_sum(packed, torch.from_numpy(x).double())[0].numpy(), expected)


def test_a_wrong_output_is_counted() -> None:
    packed = weights((6, 32))
    layer = Operator(
        "linear", Role.INT8_LAYER, "y", ("x",), "fc", 0.5, 30, packed, activation="relu"
    )
    right = exact_output(layer, source((3, 32)))
    assert right.min() >= 30
    planted = right.clone()
    planted[0, 0] += 2 if planted[0, 0] < 200 else -2
    planted[1, 1] += 1 if planted[1, 1] < 200 else -1
    output = QuantizedTensor(planted.to(torch.uint8), 0.5, 30)
    assert compare(LayerTraffic(layer, source((3, 32)), output)) == (18, 1, 2.0)


@pytest.mark.parametrize("rounded", [True, False])
def test_a_bias_is_right_whether_or_not_it_is_rounded_to_a_unit_of_the_sum(rounded: bool) -> None:
    # A unit of the sum is 40 steps of the output, as behind a BatchNorm that has seen one value.
    step, scale = 0.4, 0.01
    weight = torch.zeros(1, 2, dtype=torch.int8)
    zero = torch.zeros(1, dtype=torch.long)
    bias = torch.tensor([0.5])
    packed = IntegerWeights(weight, torch.tensor([step / 0.02]).double(), zero, True, bias)
    layer = Operator("linear", Role.INT8_LAYER, "y", ("x",), "fc", scale, 30, packed)
    expected = 30 + (round(0.5 / step) * step if rounded else 0.5) / scale
    for error, wrong in ((0, 0), (3, 2)):
        values = torch.full((2, 1), round(expected) + error, dtype=torch.uint8)
        output = QuantizedTensor(values, scale, 30)
        assert compare(LayerTraffic(layer, source((2, 2)), output))[1] == wrong


@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (4, 1, 3, 3), (5, 8)])
@pytest.mark.parametrize("limit", [60, 63, 64, 65, 100, 127])
def test_pairs_are_those_of_brute_force(shape: tuple[int, ...], limit: int) -> None:
    groups = 4 if shape[1] == 1 else 1
    packed = weights(shape, groups, seed=limit)
    packed = replace(packed, integers=packed.integers.clamp(-limit, limit))
    highest = torch.arange(shape[1] * groups) * 7 + 200
    flat = packed.integers.movedim(1, -1).reshape(shape[0], -1).tolist()
    worst = [
        (max(a, 0) * x + max(b, 0) * y, min(a, 0) * x + min(b, 0) * y)
        for out, row in enumerate(flat)
        for k, (a, b) in enumerate(pairwise(row))
        for x, y in [
            (int(highest[out]),) * 2
            if groups > 1
            else (int(highest[k % shape[1]]), int(highest[(k + 1) % shape[1]]))
        ]
    ]
    expected = any(high > 32767 or low < -32768 for high, low in worst)
    assert leaves_int16(packed, None, highest) is expected


def test_seven_bits_are_the_most_that_cannot_leave_16_bits() -> None:
    packed = weights((4, 8))
    full = torch.full((4, 8), 64, dtype=torch.int8)
    assert not leaves_int16(replace(packed, integers=full))
    assert leaves_int16(replace(packed, integers=full + 1))
