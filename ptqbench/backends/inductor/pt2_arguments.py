"""Arguments and operators in the JSON of ``torch.export``: which there are, and what they mean."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ptqbench.backends.inductor.pt2_archive import dtype_of
from ptqbench.quantization import simulation

_ROUNDING = simulation.QUANTIZE.namespace
"""Namespace of the operators that round, which torch registers when that module is imported."""

_NAMESPACES = ("aten", _ROUNDING, "prims")
_REFUSED = frozenset({"from_file", "save", "_print", "record_stream"})
"""Operators of torch that reach outside of the program."""
_PYTHON: Mapping[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            *("eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "getitem"),
            *("mul", "add", "sub", "floordiv", "mod", "pow", "truediv"),
        )
    },
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite")
    },
}
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string")
_NAMES = ("as_sym_int", "as_sym_bool", "as_sym_float")


def operator_of(target: str) -> Any:
    """The operator of a name.

    Raises:
        ValueError: It is none of torch's own, or one that reaches outside of the program.
    """
    if target in _PYTHON:
        return _PYTHON[target]
    parts = target.split(".")
    if len(parts) != 5 or parts[:2] != ["torch", "ops"] or parts[2] not in _NAMESPACES:
        raise ValueError(target)
    _, _, namespace, name, overload = parts
    if name in _REFUSED:
        raise ValueError(target)
    try:
        return getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except AttributeError:
        raise ValueError(target) from None


def argument(value: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """An argument as a Python value, or as what a name stands for in a graph.

    Args:
        value: Its kind, and what it is.
        values: By name.

    Raises:
        ValueError: A kind that programs of plain tensors do not have.
        KeyError: A name that stands for nothing.
    """
    ((kind, content),) = value.items()
    if kind in _PLAIN:
        return content
    if kind in ("as_tensor", "as_optional_tensor", "as_optional_tensors", "as_tensors"):
        return _tensors(kind, content, values)
    if kind in _NAMES:
        return _number(content, values)
    if kind in ("as_sym_ints", "as_sym_bools", "as_sym_floats"):
        return [_number(each, values) for each in content]
    simple: Mapping[str, Callable[[Any], Any]] = {
        "as_none": lambda _: None,
        "as_scalar_type": dtype_of,
        "as_memory_format": _MEMORY_FORMATS.__getitem__,
        "as_layout": lambda number: _strided(int(number)),
        "as_device": lambda device: _cpu(str(device["type"])),
    }
    if kind not in simple:
        raise ValueError(f"an argument of the kind {kind.removeprefix('as_')}")
    return simple[kind](content)


def _tensors(kind: str, content: Any, values: Mapping[str, Any]) -> Any:
    if kind == "as_tensor":
        return values[content["name"]]
    if kind == "as_tensors":
        return [values[each["name"]] for each in content]
    if kind == "as_optional_tensor":
        return argument(content, values)
    return [argument(each, values) for each in content]


def _number(content: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    ((kind, value),) = content.items()
    return values[value] if kind == "as_name" else value


def _strided(number: int) -> torch.layout:
    if number != 7:
        raise ValueError("tensors that are not dense")
    return torch.strided


def _cpu(kind: str) -> torch.device:
    if kind not in ("cpu", "meta"):
        raise ValueError(f"tensors on {kind}")
    return torch.device("cpu")
