"""Biases that take back what rounding the weights adds to a layer's output on average.

Rounded weights differ from the float ones by a fixed error, which the mean input of a layer turns
into a shift of each output channel: large in a depthwise filter, whose few errors do not average
out. The shift is known and a bias can take it back (Nagel et al. 2019, Data-Free Quantization
Through Weight Equalization and Bias Correction, section 4.2, here with the mean input that
calibration images give, padding included).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule
from torch.ao.quantization import QConfig
from torch.fx import GraphModule
from torch.nn import functional as F

from ptqbench.quantization.weight_observer import WeightObserver

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class MeanInput:
    """The mean of a layer's inputs over images, for each size of them.

    Attributes:
        totals: Sum over images by shape: ``C×H×W`` of a convolution, ``I`` of a linear layer.
        counts: Number of images, or of rows of a linear layer, by shape.
    """

    totals: dict[torch.Size, Tensor] = field(default_factory=dict)
    counts: dict[torch.Size, int] = field(default_factory=dict)

    def add(self, inputs: Tensor) -> None:
        """Add inputs, ``N×…`` float32."""
        total, shape = inputs.sum(0), inputs.shape[1:]
        self.totals[shape] = self.totals[shape] + total if shape in self.totals else total
        self.counts[shape] = self.counts.get(shape, 0) + len(inputs)

    def shift(self, layer: nn.Module, error: Tensor) -> Tensor:
        """Return by how much an error of a layer's weights moves each output channel on average.

        Args:
            layer: Convolution or linear layer.
            error: Of its weights, ``O×I×…`` float32.
        """
        shifts, positions = torch.zeros(len(error)), 0
        for shape, total in self.totals.items():
            mean = total / self.counts[shape]
            if isinstance(layer, nn.Linear):
                outputs = F.linear(mean, error)[:, None]
            else:
                assert isinstance(layer, _CONVOLUTIONS)
                forward: Callable[..., Tensor] = layer._conv_forward
                outputs = forward(mean[None], error, None)[0].flatten(1)
            weight = self.counts[shape] * outputs.shape[1]
            shifts, positions = shifts + outputs.mean(1) * weight, positions + weight
        return shifts / positions


def quantized_layers(prepared: nn.Module) -> Iterator[tuple[str, nn.Module, QConfig]]:
    """Yield the convolutions and linear layers that conversion makes int8, with their qconfig.

    Args:
        prepared: With observers; in a graph only what it calls itself becomes int8.
    """
    called = None
    if isinstance(prepared, GraphModule):
        called = {str(node.target) for node in prepared.graph.nodes if node.op == "call_module"}
    seen: set[nn.Module] = set()
    for name, module in prepared.named_modules():
        layer = module[0] if isinstance(module, _FusedModule) else module
        if layer in seen:  # inside a fused module, which comes first
            continue
        seen.add(layer)
        qconfig = getattr(module, "qconfig", None)
        if (
            type(layer) in (*_CONVOLUTIONS, nn.Linear)
            and isinstance(qconfig, QConfig)
            and isinstance(qconfig.weight(), WeightObserver)
            and (called is None or name in called)
        ):
            yield name, layer, qconfig


@contextmanager
def mean_inputs(prepared: nn.Module) -> Iterator[Mapping[str, MeanInput]]:
    """Record the mean inputs of layers, by path, while a prepared module runs."""
    means: dict[str, MeanInput] = {}

    def recorder(mean: MeanInput) -> Callable[[nn.Module, Any], None]:
        def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2) if isinstance(layer, nn.Linear) else inputs[0]
            mean.add(rows)

        return record

    handles = []
    for name, layer, _ in quantized_layers(prepared):
        means[name] = MeanInput()
        handles.append(layer.register_forward_pre_hook(recorder(means[name])))
    try:
        yield means
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def correct_biases(prepared: nn.Module, means: Mapping[str, MeanInput]) -> None:
    """Let biases take back the mean shift that rounded weights cause, in place.

    Args:
        prepared: Calibrated, its weight grids set.
        means: Of its layers' inputs.
    """
    for name, layer, qconfig in list(quantized_layers(prepared)):
        mean = means.get(name)
        if mean is None or not mean.totals:  # the layer was not reached
            continue
        weight: Tensor = layer.weight  # type: ignore[assignment]
        shift = mean.shift(layer, qconfig.weight().rounded(weight) - weight)
        bias: Tensor | None = layer.bias  # type: ignore[assignment]
        corrected = -shift if bias is None else bias - shift
        if bool(corrected.isfinite().all()):  # broken weights are a verdict of the gates
            layer.bias = nn.Parameter(corrected, requires_grad=False)
