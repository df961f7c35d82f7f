"""int8 layers in exact integer arithmetic, and what an AVX2 kernel would do to them.

Integers are carried in float64, which is exact below 2⁵³; a sum of u8×s8 products stays
below 2⁴⁰ for every layer that fits into memory.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ptqbench.backends.torch_engines.engine import engine_set
from ptqbench.backends.torch_engines.graph import Graph
from ptqbench.backends.torch_engines.operators import Operator
from ptqbench.backends.torch_engines.packed_weights import PackedWeights
from ptqbench.core.phases import INSPECTION, Phases

_CHECKED = frozenset(
    f"quantized::{name}" for name in ("conv2d", "conv2d_relu", "linear", "linear_relu")
)
_INT16 = (-(2**15), 2**15 - 1)


@dataclass(frozen=True)
class Traffic:
    """What went into a layer and what came out, quantized."""

    layer: Operator
    source: Tensor
    output: Tensor


def frozen(script: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The module with its parameters inside the graph; itself if it is so already."""
    if not next(script.inlined_graph.inputs()).uses():
        return script
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        made: torch.jit.ScriptModule = torch.jit.freeze(script.eval())
    return made


def traffic(
    script: torch.jit.ScriptModule,
    graph: Graph,
    images: Tensor,
    engine: str,
    phases: Phases | None = None,
) -> list[Traffic]:
    """Run a frozen module once and keep inputs and outputs of its int8 layers.

    The graph itself runs, with its own kernels; it only returns more than before. Layers
    inside branches cannot be looked at from outside and are left out.

    Args:
        script: Frozen (see :func:`frozen`).
        graph: What was read in it.
        images: ``N×C×H×W`` float32; all inputs and outputs are held in memory.
        engine: torch quantized engine.
        phases: Where the forward pass is counted.

    Raises:
        RuntimeError: The graph cannot be run apart from its module.
    """
    original = script.inlined_graph
    by_value = {o.value: o for o in graph.int8_layers}
    names = [node.output().debugName() for node in original.nodes() if node.kind() in _CHECKED]
    wider: Any = original.copy()
    for node in list(wider.nodes()):
        if node.kind() in _CHECKED:
            source, output = _copy(wider, node.inputsAt(0)), _copy(wider, node.output())
            source.insertBefore(node)
            output.insertAfter(node)
            wider.registerOutput(source.output())
            wider.registerOutput(output.output())
    wider.makeMultiOutputIntoTuple()
    wider.eraseInput(0)
    with engine_set(engine), torch.inference_mode():
        run = torch._C._create_function_from_graph("traffic", wider)
        with (phases or Phases()).measure(INSPECTION, forward=True):
            values = run(images)[1:]
    return [
        Traffic(by_value[name], values[2 * i], values[2 * i + 1]) for i, name in enumerate(names)
    ]


def _copy(graph: Any, value: Any) -> Any:
    """A node that copies a value: activations that work in place would change it later."""
    with graph.insert_point_guard(next(graph.nodes())):
        nothing = graph.insertConstant(None)
    return graph.create("aten::clone", [value, nothing], 1)


def exact_output(layer: Operator, source: Tensor) -> Tensor:
    """What the layer should give, as integers in float64.

    The sum of products is exact; only the final scaling rounds, to the nearest, once.

    Args:
        layer: With packed weights and output range.
        source: Its input, quantized per tensor.
    """
    packed = layer.packed
    assert packed is not None and layer.scale is not None and layer.zero_point is not None
    centred = source.int_repr().double() - source.q_zero_point()
    total = exact_sum(packed, centred)
    shape = (1, -1) + (1,) * (total.dim() - 2) if packed.stride else (-1,)
    step = (packed.scales * source.q_scale()).view(shape)
    if packed.bias is not None:
        total = total + (packed.bias.double() / step.flatten()).round().view(shape)
    scaled = (total * (step / layer.scale)).round() + layer.zero_point
    limits = torch.iinfo(source.int_repr().dtype)
    low = max(limits.min, layer.zero_point) if "_relu" in layer.kind else limits.min
    return scaled.clamp(low, limits.max)


def exact_sum(packed: PackedWeights, centred: Tensor) -> Tensor:
    """Sums of integer products, float64 and exact, of an input less its zero point."""
    zero_points = packed.zero_points.view(-1, *(1,) * (packed.integers.dim() - 1))
    weights = packed.integers.double() - zero_points
    if not packed.stride:
        return F.linear(centred, weights)
    return F.conv2d(
        centred, weights, None, packed.stride, packed.padding, packed.dilation, packed.groups
    )


def leaves_int16(packed: PackedWeights, highest: Tensor | float = 255.0) -> bool:
    """Whether two neighbouring u8×s8 products can leave 16 bits, as ``vpmaddubsw`` adds them.

    Which two products an engine adds first depends on how it packs weights: neighbouring
    input channels of one kernel position as a rule, neighbouring kernel positions in
    depthwise layers. All neighbours in the order (row, column, channel) are looked at,
    which covers both. Zero points play no part: they are corrected for afterwards.

    Args:
        packed: Weights of the layer.
        highest: The largest input there can be, as u8; or one per input channel.
    """
    # float32 is exact here: two products stay below 2¹⁷.
    weights = packed.integers.float()
    outputs, channels = weights.shape[:2]
    values = torch.as_tensor(highest, dtype=torch.float32).expand(channels * packed.groups)
    own = values.view(packed.groups, channels).repeat_interleave(outputs // packed.groups, 0)
    products = weights * own.view(outputs, channels, *(1,) * (weights.dim() - 2))
    flat = products.movedim(1, -1).flatten(1)
    if flat.shape[1] < 2:
        return False
    most, least = flat.clamp(min=0), flat.clamp(max=0)
    return bool(
        (most[:, 1:] + most[:, :-1]).max() > _INT16[1]
        or (least[:, 1:] + least[:, :-1]).min() < _INT16[0]
    )


def highest_inputs(layer: Operator, source: Tensor) -> Tensor:
    """Largest u8 value in each input channel, float64; padding puts in the zero point."""
    values = source.int_repr().double()
    if layer.packed is not None and not layer.packed.stride:
        return values.flatten(0, -2).amax(0)
    return values.amax((0, 2, 3)).clamp(min=float(source.q_zero_point()))
