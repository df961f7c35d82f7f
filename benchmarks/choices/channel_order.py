"""Input channels in an order in which the weights that a kernel pairs are small together.

oneDNN adds the products of input channels 0 and 1, 2 and 3, … in 16 bits, so that a scale has to
leave room for two weights of one sign. Which channels are neighbours is free between two layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from benchmarks.choices.graph_spaces import is_depthwise, permute, spaces_of
from ptqbench.quantization.pairing import weight_scales

_CHUNK = 1 << 26
"""Pairs of weights that are looked at together, most of which need no computation."""
_ROUNDS = 100
"""Most rounds of exchanging partners."""


def pair_costs(weights: Tensor) -> Tensor:
    """Return how much it costs to pair two input channels.

    That is by how much the sum of two weights of one sign exceeds the largest weight of their
    output channel, to the fourth power: it is the largest pair of a channel that counts.

    Args:
        weights: ``O×I×…`` float32.

    Returns:
        ``I×I``, symmetric.
    """
    rows = weights.flatten(2) if weights.dim() > 2 else weights[..., None]
    largest = rows.abs().amax((1, 2), keepdim=True).clamp(min=1e-30)
    shares = (rows / largest).movedim(2, 1).flatten(0, 1)  # output channels and positions × I
    costs = torch.zeros(shares.shape[1], shares.shape[1])
    for part in shares.split(max(1, _CHUNK // costs.numel())):
        for side in (part.clamp(min=0), (-part).clamp(min=0)):
            # One of two shares that exceed 1 together is a half at least, and few are that large.
            rows, large = (side >= 0.5).nonzero(as_tuple=True)
            partners = side[rows]
            excess = (partners + side[rows, large][:, None] - 1).clamp_(min=0).square_().square_()
            excess[partners >= 0.5] /= 2  # such a pair occurs twice
            costs.index_add_(0, large, excess)
    return costs + costs.T


def best_order(costs: Tensor) -> Tensor:
    """Return an order of channels in which neighbours 0 and 1, 2 and 3, … cost little.

    Starts from the order as it is, and exchanges partners between two pairs as long as that
    makes them cheaper. The last of an odd number of channels stays alone.

    Args:
        costs: ``I×I``, from `pair_costs`.

    Returns:
        ``I`` int64.
    """
    count = len(costs) // 2
    order = torch.arange(len(costs))
    left, right = order[0 : 2 * count : 2].clone(), order[1 : 2 * count : 2].clone()
    for _ in range(_ROUNDS):
        now = costs[left, right]
        both = now[:, None] + now[None, :]
        # Two pairs (a, b) and (c, d) can become (a, c) and (b, d), or (a, d) and (b, c).
        straight = both - costs[left][:, left] - costs[right][:, right]
        crossed = both - costs[left][:, right] - costs[right][:, left]
        gains = torch.maximum(straight, crossed).fill_diagonal_(0)
        best, partner = gains.max(1)
        free = torch.ones(count, dtype=torch.bool)
        changed = False
        for p in best.argsort(descending=True).tolist():
            q = int(partner[p])
            if float(best[p]) <= 1e-12 or not (free[p] and free[q]):
                continue
            free[p] = free[q] = False
            changed = True
            if straight[p, q] >= crossed[p, q]:
                right[p], left[q] = left[q].clone(), right[p].clone()
            else:
                right[p], right[q] = right[q].clone(), right[p].clone()
        if not changed:
            break
    order[0 : 2 * count : 2], order[1 : 2 * count : 2] = left, right
    return order


def lost_bits(weights: Tensor) -> float:
    """Return how many bits of its weights a layer gives up to pairs, on average over channels.

    Args:
        weights: ``O×I×…`` float32.
    """
    ratio = weight_scales(weights, "channels") / weight_scales(weights, None)
    return float(ratio.log2().mean())


def order_channels(model: nn.Module, traced: fx.GraphModule) -> dict[str, tuple[float, float]]:
    """Order input channels for small pairs wherever they are free, in place.

    Args:
        model: Float32, evaluation mode; its logits stay the same.
        traced: Its graph, from `graph_spaces.traced_with_shapes`.

    Returns:
        For each layer whose channels have another order now: the bits lost before and after.
    """
    changes = {}
    for space in spaces_of(traced):
        consumers = [path for path in space.consumers if not _pairs_nothing(model, path)]
        if space.fixed or space.channels < 3 or not consumers:
            continue
        weights = [_weight(model, path) for path in consumers]
        order = best_order(sum((pair_costs(each) for each in weights), torch.zeros(())))
        before = [lost_bits(each) for each in weights]
        after = [lost_bits(each[:, order]) for each in weights]
        if _sum(after) < _sum(before):
            permute(model, space, order)
            changes |= dict(zip(consumers, zip(before, after, strict=True), strict=True))
    return changes


def _sum(values: Sequence[float]) -> float:
    return sum(values, 0.0)


def _pairs_nothing(model: nn.Module, path: str) -> bool:
    return is_depthwise(model.get_submodule(path))


def _weight(model: nn.Module, path: str) -> Tensor:
    weight: Tensor = model.get_submodule(path).weight  # type: ignore[assignment]
    return weight.detach()
