"""What ATen operators are called in a model's code, as torch.ao knows them.

torch.ao recognises functions and methods by what a user writes (``torch.cat``, ``F.hardswish``,
``x.mean``). Whatever is not in the table stays the ATen operator and is executed in float32.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch.fx import Node
from torch.nn import functional as F

Arguments = Mapping[str, Any]
Emit = Callable[[fx.Graph, Arguments], Node | None]
"""Adds a node for an operator with these arguments; None if it cannot say the same."""

_END = 2**63 - 1
"""What ATen writes for the end of a slice."""


def _function(target: Callable[..., Any], *names: str, **options: str) -> Emit:
    """Call a function with arguments by position, and others by another name."""

    def emit(graph: fx.Graph, values: Arguments) -> Node:
        named = {theirs: values[ours] for theirs, ours in options.items()}
        return graph.call_function(target, tuple(values[name] for name in names), named)

    return emit


def _method(name: str, *names: str) -> Emit:
    def emit(graph: fx.Graph, values: Arguments) -> Node:
        return graph.call_method(name, tuple(values[each] for each in names))

    return emit


def _binary(target: Callable[..., Any]) -> Emit:
    """An operator of two values; ATen's ``alpha`` has no place in it."""

    def emit(graph: fx.Graph, values: Arguments) -> Node | None:
        if values.get("alpha", 1) != 1:
            return None
        return graph.call_function(target, (values["self"], values["other"]))

    return emit


def _gelu(graph: fx.Graph, values: Arguments) -> Node:
    return graph.call_function(F.gelu, (values["self"],), {"approximate": values["approximate"]})


def _hardtanh(graph: fx.Graph, values: Arguments) -> Node:
    low, high = values["min_val"], values["max_val"]
    if (low, high) == (0, 6):
        return graph.call_function(F.relu6, (values["self"],))
    return graph.call_function(F.hardtanh, (values["self"], low, high))


def _clamp(graph: fx.Graph, values: Arguments) -> Node | None:
    low, high = values["min"], values["max"]
    if low == 0 and high is None:
        return graph.call_function(F.relu, (values["self"],))
    if (low, high) == (0, 6):
        return graph.call_function(F.relu6, (values["self"],))
    numbers = all(isinstance(each, int | float | None) for each in (low, high))
    return graph.call_function(torch.clamp, (values["self"], low, high)) if numbers else None


def _mean(graph: fx.Graph, values: Arguments) -> Node | None:
    if values.get("dtype") is not None or not values.get("dim"):
        return None
    dims, keepdim = tuple(values["dim"]), values["keepdim"]
    return graph.call_method("mean", (values["self"], dims, keepdim))


def _slice(graph: fx.Graph, values: Arguments) -> Node | None:
    if values["dim"] < 0:
        return None
    start, end, step = values["start"], values["end"], values["step"]
    part = slice(start or None, None if end in (None, _END) else end, None if step == 1 else step)
    index = (*[slice(None)] * values["dim"], part)
    return graph.call_function(operator.getitem, (values["self"], index))


def _select(graph: fx.Graph, values: Arguments) -> Node | None:
    if values["dim"] < 0:
        return None
    index = (*[slice(None)] * values["dim"], values["index"])
    return graph.call_function(operator.getitem, (values["self"], index))


def _split(graph: fx.Graph, values: Arguments) -> Node:
    size = values["split_size"] if "split_size" in values else values["split_sizes"]
    return graph.call_function(torch.split, (values["self"], size), {"dim": values["dim"]})


def _max_pool(target: Callable[..., Any]) -> Emit:
    return _function(
        target, "self", "kernel_size", "stride", "padding", "dilation", ceil_mode="ceil_mode"
    )


def _avg_pool(target: Callable[..., Any]) -> Emit:
    names = ("self", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")

    def emit(graph: fx.Graph, values: Arguments) -> Node:
        arguments = [values[name] for name in names]
        arguments[2] = arguments[2] or arguments[1]
        divisor = values.get("divisor_override")
        return graph.call_function(target, (*arguments, divisor) if divisor else tuple(arguments))

    return emit


def _upsample(mode: str) -> Emit:
    def emit(graph: fx.Graph, values: Arguments) -> Node | None:
        options: dict[str, Any] = {"mode": mode}
        if mode == "bilinear":
            options["align_corners"] = values["align_corners"]
        if (size := values.get("output_size")) is not None:
            options["size"] = list(size)
        elif (factors := values.get("scale_factors")) is not None:
            options["scale_factor"] = list(factors)
        else:
            return None
        return graph.call_function(F.interpolate, (values["input"],), options)

    return emit


def _pad(graph: fx.Graph, values: Arguments) -> Node:
    options = (values["self"], list(values["pad"]), values["mode"], values["value"])
    return graph.call_function(F.pad, options)


FUNCTIONS: Mapping[str, Emit] = {
    "add": _binary(operator.add),
    "sub": _binary(operator.sub),
    "mul": _binary(operator.mul),
    "div": _function(operator.truediv, "self", "other"),
    "matmul": _function(torch.matmul, "self", "other"),
    "cat": _function(torch.cat, "tensors", dim="dim"),
    "stack": _function(torch.stack, "tensors", dim="dim"),
    "relu": _function(F.relu, "self"),
    "relu6": _function(F.relu6, "self"),
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": lambda graph, values: _clamp(graph, {"max": None, **values}),
    "hardswish": _function(F.hardswish, "self"),
    "hardsigmoid": _function(F.hardsigmoid, "self"),
    "sigmoid": _function(torch.sigmoid, "self"),
    "tanh": _function(torch.tanh, "self"),
    "silu": _function(F.silu, "self"),
    "gelu": _gelu,
    "leaky_relu": _function(F.leaky_relu, "self", "negative_slope"),
    "mean": _mean,
    "adaptive_avg_pool1d": _function(F.adaptive_avg_pool1d, "self", "output_size"),
    "adaptive_avg_pool2d": _function(F.adaptive_avg_pool2d, "self", "output_size"),
    "adaptive_avg_pool3d": _function(F.adaptive_avg_pool3d, "self", "output_size"),
    "max_pool1d": _max_pool(F.max_pool1d),
    "max_pool2d": _max_pool(F.max_pool2d),
    "max_pool3d": _max_pool(F.max_pool3d),
    "avg_pool2d": _avg_pool(F.avg_pool2d),
    "flatten": _function(torch.flatten, "self", "start_dim", "end_dim"),
    "permute": _method("permute", "self", "dims"),
    "transpose": lambda graph, values: (
        graph.call_method("transpose", (values["self"], values["dim0"], values["dim1"]))
        if "dim0" in values
        else None
    ),
    "squeeze": lambda graph, values: (
        graph.call_method("squeeze", (values["self"], values["dim"])) if "dim" in values else None
    ),
    "unsqueeze": _method("unsqueeze", "self", "dim"),
    "chunk": _function(torch.chunk, "self", "chunks", dim="dim"),
    "split": _split,
    "split_with_sizes": _split,
    "slice": _slice,
    "select": _select,
    "pixel_shuffle": _function(F.pixel_shuffle, "self", "upscale_factor"),
    "upsample_nearest2d": _upsample("nearest"),
    "upsample_bilinear2d": _upsample("bilinear"),
    "pad": _pad,
}
"""By name of the operator, without overload and without the underscore of those in place."""
