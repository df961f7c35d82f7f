"""Ranges of activations with the least squared error of what the layers behind them compute."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.ao.quantization import MinMaxObserver, ObserverBase

from benchmarks.choices.output_error import output_errors
from ptqbench.quantization.bias_correction import quantized_layers
from ptqbench.quantization.weight_observer import WeightObserver

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4)
"""Ranges that are tried, as shares of the whole; and the range of the histogram's least error."""
_LEVELS = 255
Range = tuple[float, float]


def replace_observers(prepared: nn.Module, ranges: Mapping[ObserverBase, Range]) -> None:
    """Give observers a range, in place and wherever they are shared.

    Args:
        prepared: Calibrated.
        ranges: Least and largest value by observer.
    """
    observers: dict[nn.Module, nn.Module] = {}
    for observer, (low, high) in ranges.items():
        fixed = MinMaxObserver(dtype=observer.dtype)
        fixed.min_val, fixed.max_val = torch.tensor(low), torch.tensor(high)
        observers[observer] = fixed
    for name, module in list(prepared.named_modules(remove_duplicate=False)):
        if module in observers:
            prepared.set_submodule(name, observers[module])


def whole_ranges(prepared: nn.Module) -> dict[ObserverBase, Range]:
    """Return the least and the largest value that each histogram spans.

    These are those of what was observed, so that an observer of minima and maxima would have them.
    """
    return {
        observer: (float(observer.min_val), float(observer.max_val))
        for observer in prepared.modules()
        if isinstance(observer, ObserverBase)
        and hasattr(observer, "histogram")
        and bool(observer.min_val.isfinite())
    }


@contextmanager
def _observers_of_inputs(prepared: nn.Module) -> Iterator[dict[ObserverBase, list[str]]]:
    """Note which observer looked last at what a layer reads, while a module runs one image."""
    latest: dict[int, tuple[Tensor, ObserverBase]] = {}  # the tensor is kept, and so its identity
    readers: dict[ObserverBase, list[str]] = defaultdict(list)

    def observe(observer: Any, inputs: Any, output: Tensor) -> None:
        latest[id(output)] = output, observer

    def reader(name: str) -> Callable[[nn.Module, Any], None]:
        def read(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if id(inputs[0]) in latest:
                readers[latest[id(inputs[0])][1]].append(name)

        return read

    handles = [
        module.register_forward_hook(observe)
        for module in prepared.modules()
        if isinstance(module, ObserverBase) and not isinstance(module, WeightObserver)
    ]
    for name, layer, _ in quantized_layers(prepared):
        handles.append(layer.register_forward_pre_hook(reader(name)))
    try:
        yield readers
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def readers_of(prepared: nn.Module, example: Tensor) -> Mapping[ObserverBase, list[str]]:
    """Return the layers that read what each observer looks at, by their paths.

    Args:
        prepared: With observers.
        example: One image that they may see, ``1×C×H×W`` float32.
    """
    with _observers_of_inputs(prepared) as readers:
        prepared(example)
    return readers


def rounded(values: Tensor, low: float, high: float) -> Tensor:
    """Return values as unsigned integers of 8 bits stand for them.

    Args:
        values: Any shape, float32.
        low: Least value of the range, which is made to contain zero.
        high: Largest value of the range.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / _LEVELS, 1e-30)
    zero = round(-low / scale)
    return ((values / scale).round().clamp(-zero, _LEVELS - zero)) * scale


def best_range(
    histogram_range: Range,
    whole: Range,
    readers: Iterable[tuple[Tensor, Tensor]],
    *,
    only_layers: bool = True,
) -> Range:
    """Return the range whose error in the outputs of layers, each by its power, is the least.

    Args:
        histogram_range: With the least error of the activations themselves.
        whole: From the least to the largest value.
        readers: Rows of inputs ``R×G×d`` and weights ``O×d`` of each layer.
        only_layers: Whether nothing else reads the activations; else (a residual sum, say) their
            own error counts as one more output.
    """
    layers = [
        (rows, weights, output_errors(rows, weights, centred=True).sum().clamp(min=1e-30))
        for rows, weights in readers
    ]

    def cost(tried: Range) -> float:
        total = 0.0
        for rows, weights, power in layers:
            errors = rounded(rows, *tried) - rows
            total += float(output_errors(errors, weights, centred=False).sum() / power)
            if not only_layers:
                total += float(errors.square().mean() / rows.var().clamp(min=1e-30)) / len(layers)
        return total

    tried = [histogram_range, *((whole[0] * share, whole[1] * share) for share in SHARES)]
    return min(tried, key=cost)


@torch.no_grad()
def ranges_by_output(
    prepared: nn.Module, rows: Mapping[str, Tensor], example: Tensor
) -> dict[ObserverBase, Range]:
    """Return the ranges of activations that layers read, with the least error of their outputs.

    What else an observer sees is not sampled: one that looks at several values keeps its range.

    Args:
        prepared: Calibrated with histograms.
        rows: Samples of the layers' inputs ``R×G×d``, by path.
        example: One calibration image, ``1×C×H×W`` float32.
    """
    layers = {name: layer for name, layer, _ in quantized_layers(prepared)}
    whole, others = whole_ranges(prepared), read_by_others(prepared, layers)
    several = observers_of_several(prepared)
    result = {}
    for observer, names in readers_of(prepared, example).items():
        if observer not in whole or observer in several:
            continue
        scale, zero = (float(value) for value in observer.calculate_qparams())
        histogram = -zero * scale, (_LEVELS - zero) * scale
        pairs = [(rows[name], _weight(layers[name])) for name in dict.fromkeys(names)]
        only_layers = observer not in others
        result[observer] = best_range(histogram, whole[observer], pairs, only_layers=only_layers)
    return result


def read_by_others(prepared: nn.Module, layers: Iterable[str]) -> frozenset[nn.Module]:
    """Return the observers of what anything but layers reads; without a graph, all of them.

    Args:
        prepared: With observers.
        layers: Paths of the layers.
    """
    if not isinstance(prepared, fx.GraphModule):
        return frozenset(prepared.modules())
    names = frozenset(layers)
    return frozenset(
        module
        for module, node in _calls(prepared)
        if {str(user.target) for user in node.users} - names
    )


def observers_of_several(prepared: nn.Module) -> frozenset[nn.Module]:
    """Return the observers that look at several values: before and after pooling, for example."""
    if not isinstance(prepared, fx.GraphModule):
        return frozenset()
    counts = Counter(module for module, _ in _calls(prepared))
    return frozenset(module for module, count in counts.items() if count > 1)


def _calls(prepared: fx.GraphModule) -> Iterator[tuple[nn.Module, fx.Node]]:
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            yield modules[str(node.target)], node


def _weight(layer: Any) -> Tensor:
    weight: Tensor = layer.weight.detach().flatten(1)
    return weight
