"""Does XNNPACK saturate on this CPU: layers with worst-case integers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.fx import Graph, GraphModule

from ptqbench.backends.executorch.et_export import export_program, with_integers
from ptqbench.backends.executorch.et_session import EtModel
from ptqbench.backends.worst_case import worst_shares
from ptqbench.quantization.simulation import DEQUANTIZE, QUANTIZE, RoundedWeights


def probe() -> Mapping[str, float]:
    """Share of its true value that the worst output of each kind of layer comes out at."""
    return worst_shares(layer_outputs)


def layer_outputs(
    weights: np.ndarray, groups: int, scale: float, zero_point: int, value: int = 255
) -> np.ndarray:
    """Run one layer on inputs that are all the same.

    Args:
        weights: int8, ``O×I×K×K`` of a convolution or ``O×I`` of a linear layer.
        groups: Of the convolution.
        scale: Of the output, in units of the integer sum.
        zero_point: Of the output, as u8.
        value: The inputs, as u8.

    Returns:
        One output of each channel, as an integer ``O`` in steps of u8.
    """
    outputs, inputs, *kernel = weights.shape
    layer: nn.Module = nn.Linear(inputs, outputs, bias=False)
    if kernel:
        layer = nn.Conv2d(inputs * groups, outputs, tuple(kernel), groups=groups, bias=False)
    graph = Graph()
    node = graph.placeholder("images")
    node = _rounded(graph, node, 1.0, 0)
    node = graph.call_module("layer", (node,))
    graph.output(_rounded(graph, node, scale, zero_point))
    rounded = RoundedWeights(torch.from_numpy(weights), torch.ones(outputs))
    module = GraphModule(nn.ModuleDict({"layer": layer}), graph)
    module = with_integers(module, {"layer.weight": rounded})
    pixels = torch.full((1, inputs * groups, *(size + 2 for size in kernel)), float(value))
    logits = EtModel(export_program(module, pixels), 1)(pixels)
    first = logits.reshape(outputs, -1)[:, 0].numpy()
    steps: np.ndarray = np.round(first / np.float32(scale)).astype(np.int64) + zero_point
    return steps


def _rounded(graph: Graph, node: torch.fx.Node, scale: float, zero_point: int) -> torch.fx.Node:
    """Quantize to u8 and back."""
    for target in (QUANTIZE, DEQUANTIZE):
        node = graph.call_function(target, (node, scale, zero_point, 0, 255, torch.uint8))
    return node
