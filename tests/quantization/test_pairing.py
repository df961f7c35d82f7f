"""Which products kernels really add in 16 bits, and scales of weights that allow for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
from torch import Tensor

from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.quantization.pairing import SUM, Pairing, pairs_of, weight_scales
from ptqbench.quantization.torch_warnings import known_deprecations_ignored
from ptqbench.quantization.weight_observer import WeightObserver

STEPS = 200
"""Output of two products of 255 and 127; one that saturates comes out at half of it."""
SHAPES = {
    "pointwise": ((8, 16, 1, 1), 1),
    "odd channels": ((8, 3, 3, 3), 1),
    "dense": ((8, 8, 3, 3), 1),
    "groups": ((32, 8, 3, 3), 4),
    "depthwise": ((128, 1, 3, 3), 128),
    "depthwise 5×5": ((128, 1, 5, 5), 128),
    "linear": ((16, 17), 1),
}
ADDING = [b for b in TORCH_ENGINES if b.availability() is None and b.saturates()]


def full_pairs(shape: tuple[int, ...]) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
    """Weights with two of 127 in each output channel, until every two were together once."""
    positions = list(combinations(range(torch.Size(shape[1:]).numel()), 2))
    for start in range(0, len(positions), shape[0]):
        chunk = positions[start : start + shape[0]]
        weights = torch.zeros(shape, dtype=torch.int8)
        for channel, pair in enumerate(chunk):
            weights.view(shape[0], -1)[channel, list(pair)] = 127
        yield weights, chunk


def run(weights: Tensor, groups: int) -> Tensor:
    """Outputs of a layer whose inputs are all 255, one for each channel."""
    packed = torch._make_per_tensor_quantized_tensor(weights, 1.0, 0)
    scale = 255 * 127 * 2 / STEPS
    shape = (1, weights.shape[1] * groups, *((8, 8) if weights.dim() == 4 else ()))
    integers = torch.full(shape, 255, dtype=torch.uint8)
    images = torch._make_per_tensor_quantized_tensor(integers, 1.0, 0)
    if weights.dim() == 2:
        layer = torch.ops.quantized.linear_prepack(packed, None)
        return torch.ops.quantized.linear(images, layer, scale, 0).int_repr()[0]
    padding = [weights.shape[-1] // 2] * 2
    layer = torch.ops.quantized.conv2d_prepack(packed, None, [1, 1], padding, [1, 1], groups)
    return torch.ops.quantized.conv2d(images, layer, scale, 0).int_repr()[0, :, 4, 4]


def saturating_pairs(shape: tuple[int, ...], groups: int) -> set[tuple[int, int]]:
    """Positions of two weights whose products leave 16 bits together, by trying all."""
    positions: set[tuple[int, int]] = set()
    for weights, chunk in full_pairs(shape):
        outputs = run(weights, groups)[: len(chunk)]
        positions |= {
            pair for pair, output in zip(chunk, outputs, strict=True) if output < STEPS - 2
        }
    return positions


def declared_pairs(shape: tuple[int, ...], pairing: Pairing) -> set[tuple[int, int]]:
    """Positions of the two weights of each pair, read from what numbers become."""
    count = torch.Size(shape[1:]).numel()
    numbers = torch.arange(1, count + 1).reshape(1, *shape[1:]).float()
    pairs = pairs_of(numbers, pairing)[0].long().tolist()
    return {(min(a, b) - 1, max(a, b) - 1) for a, b in pairs if a and b}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("backend", ADDING, ids=lambda backend: backend.name)
def test_kernels_add_the_declared_pairs_and_no_others(backend, kind: str) -> None:
    shape, groups = SHAPES[kind]
    with engine_set(backend.engine), torch.inference_mode(), known_deprecations_ignored():
        executed = saturating_pairs(shape, groups)
    # A CPU with VNNI adds in 32 bits outside fbgemm's depthwise kernels.
    assert executed in (declared_pairs(shape, backend.pairing), set())
    if not backend.saturates("avx512_vnni") or "depthwise" in kind:
        assert executed == declared_pairs(shape, backend.pairing)


@pytest.mark.parametrize("pairing", ["channels", "taps"])
@pytest.mark.parametrize("shape", [(64, 7, 3, 3), (64, 1, 5, 5), (64, 33), (64, 6, 3), (64, 4, 1)])
def test_scales_are_the_smallest_that_sums_allow(shape: tuple[int, ...], pairing: Pairing) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(shape, generator=generator) * torch.rand(
        (shape[0], *(1,) * (len(shape) - 1)), generator=generator
    )
    weights[0], weights[1] = 0.0, 0.5
    observer = WeightObserver(pairing=pairing)
    observer(weights)
    scales, zero_points = observer.calculate_qparams()
    integers = torch.quantize_per_channel(weights, scales, zero_points, 0, torch.qint8).int_repr()
    pairs = declared_pairs((1, *shape[1:]), pairing)
    for channel in range(shape[0]):
        flat = integers[channel].flatten().tolist()
        sums = [flat[a] + flat[b] for a, b in pairs if flat[a] * flat[b] > 0]
        assert max(map(abs, flat)) <= 127
        assert all(abs(each) <= SUM for each in sums)
        # A step less, and a weight or a sum before rounding would exceed 127.
        exact = (weights[channel].flatten() / scales[channel]).tolist()
        largest = max(
            map(abs, [*exact, *(exact[a] + exact[b] for a, b in pairs if exact[a] * exact[b] > 0)])
        )
        assert channel == 0 or largest == pytest.approx(127, rel=1e-5)


def test_no_pair_gives_up_what_it_need_not() -> None:
    weights = torch.tensor([[1.0, -1.0, 0.5, 0.5], [1.0, 0.25, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    assert (weight_scales(weights, None) * 127).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert (weight_scales(weights, "channels") * 127).tolist() == pytest.approx([1.0, 1.25, 2.0])


def test_a_channel_next_to_nothing_has_a_scale_that_its_bias_fits() -> None:
    weights = torch.tensor([[1.0, 0.5], [1e-9, 0.0], [0.0, 0.0]])
    for pairing in (None, "channels"):
        scales = weight_scales(weights, pairing)
        assert torch.equal(scales[1:], scales[:1].expand(2) / 2**16)
    assert weight_scales(torch.zeros(2, 3), None).tolist() == [1.0, 1.0]


def test_the_largest_weight_of_a_channel_is_not_clipped() -> None:
    weights = torch.tensor([[1.0, -0.1], [-1.0, 0.1]])
    for options, most in (({}, 127), ({"seven_bits": True}, 64)):
        observer = WeightObserver(**options)
        observer(weights)
        scales, zero_points = observer.calculate_qparams()
        quantized = torch.quantize_per_channel(weights, scales, zero_points, 0, torch.qint8)
        assert quantized.int_repr().abs().amax(1).tolist() == [most, most]
        assert torch.allclose(quantized.dequantize()[:, 0], weights[:, 0])
